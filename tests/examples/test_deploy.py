"""What docs/deploy offers to a machine of one's own works as it stands."""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from red_squares import picture
from typer.testing import CliRunner

from maskbatch.cli import build_app

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"


@pytest.mark.parametrize("command", ["scan", "report"])
def test_the_settings_are_those_of_this_version(command: str) -> None:
    result = CliRunner().invoke(build_app(), [command, "--config", str(DEPLOY / "maskbatch.toml"), "--show-config"])
    assert result.exit_code == 0, result.exception
    assert "Europe/Berlin" in result.output


def test_a_night_is_scanned_and_reported_though_a_file_is_broken(tmp_path: Path) -> None:
    import cv2

    archive, results = tmp_path / "cctv", tmp_path / "results"
    archive.mkdir()
    results.mkdir()
    now = dt.datetime.now(dt.UTC)
    for days, name in ((0, "new"), (3, "old")):
        moment = now - dt.timedelta(days=days, minutes=5)
        cv2.imwrite(str(archive / f"gate_{moment:%Y%m%d_%H%M%S}_{name}.png"), picture([(2, 2, "blue")]))
    (archive / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    settings = tmp_path / "maskbatch.toml"
    settings.write_text('device = "cpu"\nexecutor = "inline"\nprogress = "none"\ndet-size = 320\n')
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MASKBATCH_CONFIG": str(settings),
        "TZ": "UTC",
    }
    done = subprocess.run(
        [DEPLOY / "nightly", archive, results],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (inputs,) = results.glob("*.inputs.parquet")
    names = list(pd.read_parquet(inputs)["source"])
    assert len(names) == 2
    assert not any("old" in name for name in names)
    (report,) = results.glob("*.html")
    assert report.stat().st_size > 10_000


def test_units_are_read_by_systemd(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    for unit in [*DEPLOY.glob("*.service"), *DEPLOY.glob("*.timer")]:
        # The programs are where the unit is installed, not here.
        text = re.sub(r"(?m)^(ExecStart=)\S+", r"\1/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text(re.sub(r"(?m)^Documentation=.*\n", "", text))
    units = sorted(tmp_path.glob("*.*"))
    assert len(units) == 3
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if line.startswith("maskbatch")]
    assert complaints == []
