"""Where the shared data lie; a module of its own, since there is more than one conftest to import from."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_folder() -> Path:
    """Where the data sets and odd media lie: the environment's MASKBATCH_SHARED, or ``../shared`` beside the repository."""
    return Path(os.environ.get("MASKBATCH_SHARED") or REPOSITORY.parent / "shared")
