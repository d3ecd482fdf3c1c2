"""Outputs never replace inputs nor leave their folder, names steer no terminal, and models are checked before they run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from durability_kit import CONFIG, OPTIONS, command, face_picture, input_rows, make_archive, run, write_jpeg

from maskbatch.errors import UsageError
from maskbatch.scanning.run import scan


def digest(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("how", ["itself", "hard link", "symbolic link"])
def test_an_output_never_takes_the_place_of_an_input(
    how: str, face_photo: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    picture = tmp_path / "photo.parquet"  # named on its own, a file is an input whatever it is called
    write_jpeg(picture, face_picture(face_photo, 1))
    out = tmp_path / "other.parquet"
    if how == "itself":
        out = picture
    elif how == "hard link":
        os.link(picture, out)
    else:
        out.symlink_to(picture)
    before = picture.read_bytes()
    with pytest.raises(UsageError, match="would overwrite the input"):
        scan([picture], out, CONFIG, overwrite=True)
    assert picture.read_bytes() == before


def test_inputs_are_only_read(face_photo: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    """Also where the result, the drawings and the crops lie in the very folder that is scanned."""
    folder = make_archive(tmp_path / "in", face_photo, pictures=3, video_s=1.0)
    before = digest(folder)
    options = {"annotate": folder / "drawn", "crops": folder / "crops"}
    for overwrite in (False, True):
        summary = scan([folder], folder / "results.parquet", CONFIG, overwrite=overwrite, **options)
        assert summary.inputs == len(before)
    after = digest(folder)
    assert {path: after[path] for path in before} == before
    written = {Path(path).relative_to(folder).parts[0] for path in after.keys() - before.keys()}
    assert written == {
        "drawn",
        "crops",
        "results.parquet",
        "results.inputs.parquet",
        "results.run.json",
        "results.work",
    }


NASTY = (
    "esc\x1b[31mred\x1b[0m.jpg",
    "line\nbreak.jpg",
    "bell\x07.jpg",
    "-rf.jpg",
    "a..b.jpg",
    "<b>bold<.jpg",
    "a'b\"c.jpg",
)


def test_names_of_inputs_are_data(face_photo: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number, name in enumerate(NASTY):
        write_jpeg(folder / name, face_picture(face_photo, number))
    (folder / "broken\x1b]0;title\x07.jpg").write_bytes(b"no picture")
    outside = tmp_path / "outside"
    outside.mkdir()
    out = tmp_path / "out" / "results.parquet"
    arguments = command(folder, out, "--annotate", str(tmp_path / "drawn"), "--crops", str(tmp_path / "crops"))
    done = subprocess.run([*arguments, "--progress", "text"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 3, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "\x07" not in done.stdout + done.stderr
    assert {row["source"] for row in input_rows(out)} == {*NASTY, "broken\x1b]0;title\x07.jpg"}
    status = subprocess.run(
        [sys.executable, "-m", "maskbatch", "status", str(out)], capture_output=True, text=True, check=True, timeout=60
    )
    assert "\x1b" not in status.stdout
    assert "broken\\x1b" in status.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"in", "outside", "out", "drawn", "crops"}
    assert list(outside.iterdir()) == []


def test_an_error_about_a_nasty_name_steers_no_terminal(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "maskbatch", "scan", "no\x1b[31mthing.jpg", "--device", "cpu"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- models


def packaged(name: str) -> Path:
    import maskbatch.models

    return Path(maskbatch.models.__file__).with_name(f"{name}.onnx")


def scan_with(model: str, folder: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "maskbatch",
            "scan",
            str(folder),
            "--out",
            str(tmp_path / "r.parquet"),
            *OPTIONS,
            *model.split(),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("damage", ["truncated", "no model", "empty"])
def test_a_broken_model_is_one_sentence(damage: str, archive: Path, tmp_path: Path) -> None:
    model = tmp_path / "broken.onnx"
    data = packaged("retinaface").read_bytes()
    model.write_bytes({"truncated": data[: len(data) * 2 // 3], "no model": b"PK\3\4 no model", "empty": b""}[damage])
    done = scan_with(f"--detector retinaface:{model}", archive, tmp_path)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert "broken" in lines[0]
    assert not (tmp_path / "r.parquet").exists()


def test_a_packaged_model_with_another_sum_is_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maskbatch.errors import ModelError
    from maskbatch.models import registry

    folder = shutil.copytree(registry.PACKAGE_FOLDER, tmp_path / "models", ignore=shutil.ignore_patterns("__pycache__"))
    for path in folder.glob("retinaface*.onnx"):  # whichever variant this machine runs best
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    monkeypatch.setattr(registry, "PACKAGE_FOLDER", folder)
    config = CONFIG.__class__(execution=CONFIG.execution)  # one whose worker no other test has loaded
    with pytest.raises(ModelError, match="SHA-256"):
        scan([archive], tmp_path / "r.parquet", config)
    assert not (tmp_path / "r.parquet").exists()


def test_a_model_with_data_in_another_file_is_refused(archive: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(packaged("retinaface"))
    onnx.save_model(
        model, tmp_path / "outside.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    done = scan_with(f"--detector retinaface:{tmp_path / 'outside.onnx'}", archive, tmp_path)
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "weights in other files" in done.stderr


def test_the_archive_itself_is_fine(archive: Path, tmp_path: Path) -> None:
    """The checks above would prove little if nothing ran at all."""
    assert run(archive, tmp_path / "results.parquet").faces
