"""Batch inference over archives of pictures and CCTV video: who wore a face mask, correctly or not, when and where.

::

    import maskbatch

    summary = maskbatch.scan("photos", "results.parquet")
    faces = maskbatch.read_results("results.parquet")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ScanConfig", "ScanSummary", "__version__", "read_results", "scan"]

if TYPE_CHECKING:
    from maskbatch.config import ScanConfig
    from maskbatch.results.reader import read_results
    from maskbatch.scanning.run import scan
    from maskbatch.scanning.summary import ScanSummary


def __getattr__(name: str) -> Any:
    """Load on first use, so that `import maskbatch` and `maskbatch --help` stay quick."""
    import importlib

    places = {
        "scan": "scanning.run",
        "ScanSummary": "scanning.summary",
        "ScanConfig": "config",
        "read_results": "results.read",
    }
    if name not in places:
        raise AttributeError(f"module 'maskbatch' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"maskbatch.{places[name]}"), name)
    globals()[name] = value
    return value
