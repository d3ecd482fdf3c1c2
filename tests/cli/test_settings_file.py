"""Options from a file: `--config`, `$MASKBATCH_CONFIG`, and what is said of where a value comes from."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from maskbatch.cli import build_app
from maskbatch.errors import UsageError


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASKBATCH_CONFIG", raising=False)


def call(*arguments: str | Path) -> Result:
    """The command line in this process; errors of ours come out as they are."""
    result = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def shown(*arguments: str | Path) -> dict[str, tuple[str, str]]:
    """Option → value and origin, as `--show-config` prints them."""
    result = call(*arguments, "--show-config")
    assert result.exit_code == 0, result.output
    lines = [line.split(maxsplit=2) for line in result.output.splitlines()]
    return {option: (value, origin) for option, value, origin in lines}


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_every_value_says_where_it_comes_from(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        'every = "2s"\nworkers = 3\nmin-score = 0.55\ntrack = true\nno-boxes = true\nstart-time = 2026-03-01T08:00:00Z\n',
    )
    found = shown("scan", "--config", file, "--workers", "2")
    assert found["every"] == ("2s", str(file))
    assert found["workers"] == ("2", "command line")
    assert found["min-score"] == ("0.55", str(file))
    assert found["track"] == ("true", str(file))
    assert found["boxes"] == ("false", str(file))
    assert found["start-time"] == ("2026-03-01T08:00:00+00:00", str(file))
    assert found["det-size"] == ("640", "default")


def test_every_long_option_of_every_command_can_be_set() -> None:
    """Whatever `--show-config` lists is a key; what is not listed is the file itself and the help."""
    import typer.main

    commands = typer.main.get_command(build_app()).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        if hasattr(command, "commands") or name == "export":
            continue
        listed = set(shown(name)) if len(command.params) > 2 else set()
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name not in ("config_file", "show_config", "help"):
                assert listed & {option.removeprefix("--") for option in parameter.opts}, f"{name} {parameter.opts}"


def test_underscores_are_dashes(tmp_path: Path) -> None:
    assert shown("scan", "--config", write(tmp_path, "det_size = 320\n"))["det-size"][0] == "320"


def test_the_variable_names_a_file_and_the_command_line_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKBATCH_CONFIG", str(write(tmp_path, "workers = 3\n")))
    assert shown("scan")["workers"][0] == "3"
    other = tmp_path / "other.toml"
    other.write_text("det-size = 320\n")
    found = shown("scan", "--config", other)
    assert (found["workers"], found["det-size"][0]) == (("0", "default"), "320")


def test_a_file_in_the_working_folder_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "maskbatch.toml").write_text("workers = 3\n")
    monkeypatch.chdir(tmp_path)
    assert shown("scan")["workers"] == ("0", "default")


def test_tables_are_for_other_commands(tmp_path: Path) -> None:
    file = write(
        tmp_path, 'out = "day.parquet"\ntimezone = "Europe/Berlin"\n[scan]\nworkers = 2\n[report]\nfaces = 7\n'
    )
    assert shown("scan", "--config", file)["workers"] == ("2", str(file))
    report = shown("report", "--config", file)
    assert report["faces"] == ("7", str(file))
    assert report["out"] == ("–", "default"), "the table to write must not become the report's name"
    assert report["timezone"] == ("UTC", "default")


def test_an_option_takes_the_place_of_the_one_that_excludes_it(tmp_path: Path) -> None:
    found = shown("scan", "--config", write(tmp_path, 'every = "2s"\n'), "--fps", "4")
    assert found["fps"] == ("4.0", "command line")
    assert found["every"][0] == "–"
    assert "--fps" in found["every"][1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wokers = 2\n", "scan has no setting 'wokers'; did you mean 'workers'"),
        ("quite_unlike_all = 2\n", "scan has no setting 'quite_unlike_all'$"),
        ("config = 'x'\n", "scan has no setting 'config'"),
        ("[reprot]\nfaces = 3\n", "there is no command 'reprot' with settings; did you mean 'report'"),
        ("[report]\nface = 3\n", "report has no setting 'face'; did you mean 'faces'"),
        ("[models]\nface = 3\n", "there is no command 'models' with settings"),
        ("workers = 'two'\n", "workers = 'two': .*int"),
        ("workers = -1\n", "workers = -1: "),
        ("gate = 'sound'\n", "gate = 'sound': "),
        ("track = 'yes'\n", "track is true or false, not 'yes'"),
        ("workers = true\n", "workers is a text or a number, not True"),
        ("every = ['1s']\n", "every is a text or a number"),
        ("workers = 1\n[scan]\nworkers = 2\n", "workers is set twice"),
        ("det-size = 320\ndet_size = 640\n", "are the same setting"),
        ("boxes = true\nno-boxes = true\n", "boxes and no-boxes are the same setting"),
        ("workers = \n", "is not a TOML file: Invalid value"),
        ("ray-address = 'ray://me:secret@host'\n", "ray-address holds a password or a key"),
        ("out = 'https://store/r.parquet?X-Amz-Signature=abc'\n", "out holds a password or a key"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(UsageError, match=message) as caught:
        call("scan", tmp_path, "--config", file)
    assert str(caught.value).startswith(str(file))
    assert "secret" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 21))
    for name, message in [
        ("missing.toml", "cannot be read: No such file"),
        ("", "is a folder"),
        ("binary.toml", "is not a TOML file"),
        ("large.toml", "too large"),
    ]:
        with pytest.raises(UsageError, match=message):
            call("scan", tmp_path, "--config", tmp_path / name)


def test_the_run_file_records_what_was_taken_from_the_file(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 64, 3), 90, np.uint8))
    file = write(
        tmp_path, 'det-size = 320\nworkers = 4\nexecutor = "inline"\ndevice = "cpu"\nquiet = true\nevery = "3s"\n'
    )
    command = [sys.executable, "-m", "maskbatch", "scan", "a.png", "--out", "r.parquet", "-j", "1", "--fps", "2"]
    environment = {**os.environ, "MASKBATCH_CONFIG": str(file)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    described = json.loads((tmp_path / "r.run.json").read_text())
    assert described["settings_file"] == {
        "path": str(file),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "values": {"det-size": 320, "executor": "inline", "device": "cpu", "quiet": True},
    }
    assert described["settings"]["sampling.every_s"] == 0.5
    assert described["execution"]["workers"] == 1


def test_a_secret_of_the_command_line_is_not_shown() -> None:
    found = shown("scan", "--ray-address", "ray://me:hunter2@host:10001")
    assert "hunter2" not in found["ray-address"][0]
