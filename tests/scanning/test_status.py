"""What `read_status` says where there is nothing to tell of; the rest is in tests/durability/test_changes.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskbatch.errors import InputNotFoundError
from maskbatch.scanning.status import read_status


@pytest.mark.parametrize("name", ["nowhere", "nowhere.parquet", "empty", "empty/", "notes.md"])
def test_a_place_without_work_is_named_with_what_to_give_instead(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("no work")
    with pytest.raises(InputNotFoundError, match=r"no work of a scan here; name its result \(results\.parquet\)"):
        read_status(f"{tmp_path}/{name}")
