"""A classifier of the user's own as the default: chosen, shown, used, checked, and given up again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from maskbatch.cli import main
from maskbatch.errors import ModelError
from maskbatch.models import entry_path, packaged_entries
from maskbatch.models.defaults import default_classifier, own_default

PACKAGED = next(entry for entry in packaged_entries() if entry.name == "mask_mobilenet_v2")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("MASKBATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file of the user's (the bytes of the packaged one: only the choice is tried)."""
    path = tmp_path / "mine.onnx"
    path.write_bytes(entry_path(PACKAGED).read_bytes())
    return path


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code and both outputs of the command."""
    monkeypatch.setattr(sys, "argv", ["maskbatch", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    found = capsys.readouterr()
    return int(ended.value.code or 0), found.out, found.err


def test_chosen_classifier_is_listed_and_taken_until_it_is_given_up(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown() -> str:
        out = run(monkeypatch, capsys, "scan", "--show-config")[1]
        return next(line for line in out.splitlines() if line.startswith("classifier"))

    assert "mask_mobilenet_v2 " in shown()
    code, out, _ = run(monkeypatch, capsys, "models", "use", str(mine))
    assert code == 0
    assert PACKAGED.sha256 in out
    mine.unlink()  # the copy is what counts
    own = own_default()
    assert own is not None
    assert str(own.path) in shown()
    assert "maskbatch models use" in shown()
    listed = json.loads(run(monkeypatch, capsys, "models", "list", "--json")[1])
    assert [(e["sha256"], e["here"]) for e in listed if e.get("default")] == [(PACKAGED.sha256, True)]
    assert "DEFAULT" in run(monkeypatch, capsys, "models", "list")[1]
    typed = run(monkeypatch, capsys, "scan", "--classifier", "mask_mobilenet_v2", "--show-config")[1]
    assert "command line" in next(line for line in typed.splitlines() if line.startswith("classifier"))
    assert run(monkeypatch, capsys, "models", "use", "mask_mobilenet_v2")[0] == 0
    assert default_classifier() is None
    assert "mask_mobilenet_v2 " in shown()


def test_changed_copy_is_an_error_and_not_used(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, capsys, "models", "use", str(mine))
    own = own_default()
    assert own is not None
    own.path.write_bytes(own.path.read_bytes()[:-1] + b"?")
    code, _, err = run(monkeypatch, capsys, "scan", "--show-config")
    assert code == ModelError("").exit_code
    assert "not the file that was chosen" in err
    assert "models use" in err
    assert run(monkeypatch, capsys, "models", "verify")[0] == 1


def test_what_is_no_classifier_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = entry_path(next(entry for entry in packaged_entries() if entry.name == "retinaface"))
    (tmp_path / "empty.onnx").write_bytes(b"")
    for bad in (str(detector), str(tmp_path / "empty.onnx"), str(tmp_path / "none.onnx"), "retinaface"):
        code, _, err = run(monkeypatch, capsys, "models", "use", bad)
        assert code != 0
        assert err.startswith("error: ")
        assert "Traceback" not in err
    assert own_default() is None
