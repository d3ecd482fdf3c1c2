"""Manual pages come from the same data as the reference, and `man` shows them without a complaint."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from maskbatch.cli.man import pages, write_pages
from maskbatch.cli.reference import commands


def test_every_command_has_a_page_with_all_its_options() -> None:
    found = pages()
    assert {"maskbatch.1", "maskbatch-scan.1", "maskbatch-models-list.1"} <= found.keys()
    for command in commands():
        page = found[f"{command.name.replace(' ', '-')}.1"].replace("\\-", "-")
        for parameter in command.parameters:
            assert all(f"\\fB{name}\\fR" in page for name in parameter.names), (command.name, parameter.names)
        assert command.name.removeprefix("maskbatch ") in found["maskbatch.1"].replace("\\-", "-")


def test_man_shows_them(tmp_path: Path) -> None:
    if shutil.which("man") is None:
        pytest.skip("needs man")
    write_pages(tmp_path)
    shown = subprocess.run(
        ["man", "--warnings", "-l", str(tmp_path / "maskbatch-scan.1")],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MANWIDTH": "200", "PAGER": "cat"},
        timeout=60,
    )
    assert shown.stderr == ""
    assert "Find every face in images and videos" in shown.stdout
    assert "--min-score VALUE" in shown.stdout
    assert "{camera}_%Y%m%d_%H%M%S" in shown.stdout
