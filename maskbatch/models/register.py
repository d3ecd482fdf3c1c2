"""Refresh the sizes and checksums of the packaged model files: ``python -m maskbatch.models.register [--check]``.

Run after a model was trained and its ONNX file replaced; a test holds the files and the list together.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from maskbatch.models.files import file_checksum
from maskbatch.models.registry import PACKAGE_FOLDER, PACKAGED_CHECKSUMS


def current_sums(folder: Path = PACKAGE_FOLDER) -> dict[str, dict[str, int | str]]:
    """Size and SHA-256 of every ONNX file in a folder, by model name."""
    return {
        path.name.removesuffix(".onnx"): {"size": path.stat().st_size, "sha256": file_checksum(path)}
        for path in sorted(folder.glob("*.onnx"))
    }


def main(arguments: list[str]) -> int:
    found = current_sums()
    listed = json.loads(PACKAGED_CHECKSUMS.read_text(encoding="utf-8")) if PACKAGED_CHECKSUMS.exists() else {}
    changed = sorted(name for name in found.keys() | listed.keys() if found.get(name) != listed.get(name))
    if "--check" in arguments:
        print(f"not registered as they are: {', '.join(changed)}" if changed else "every packaged model is registered")
        return 1 if changed else 0
    PACKAGED_CHECKSUMS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"registered anew: {', '.join(changed)}" if changed else "nothing changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
