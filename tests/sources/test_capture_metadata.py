"""Camera and start time from names, options and the manifest."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from maskbatch.config import CaptureMetadata
from maskbatch.errors import InputNotFoundError, UsageError
from maskbatch.sources.capture_metadata import CaptureMetadataRules, plausible_iso
from maskbatch.types import Source

MOMENT = dt.datetime(2024, 3, 12, 14, 0, 0, tzinfo=dt.UTC).timestamp()


def found(name: str, **settings: object) -> tuple[str | None, float | None]:
    source = Source("/archive/" + name, name, "video")
    result = CaptureMetadataRules(CaptureMetadata(**settings)).apply(source)  # type: ignore[arg-type]
    return result.camera, result.start_time


@pytest.mark.parametrize(
    ("name", "camera"),
    [
        ("cam03_20240312_140000.mp4", "cam03"),
        ("2024-03-12_14-00-00.mkv", None),
        ("20240312T140000Z.ts", None),
        ("gate/20240312T140000Z.ts", "gate"),
        ("gate/2024-03-12/2024-03-12 14.00.00.mp4", "gate"),
        ("NVR_ch1_main_20240312140000_20240312150000.dav", "NVR_ch1"),
        ("192.168.1.64_01_20240312140000000.mp4", "192.168.1.64_01"),
        ("RecM01_20240312_140000_140500_0.mp4", "RecM01"),
        ("front door-20240312-140000.avi", "front door"),
        ("cam1.20240312_140000.mp4", "cam1"),
        ("WIN_20240312_14_00_00_Pro.mp4", None),
        ("VID_20240312_140000.mp4", None),
        ("20240312_140000_cam7.mp4", "cam7"),
        ("hall/2024-03-12/001/dav/14/14.00.00-15.00.00[R][0@0][0].dav", "hall"),
        ("cam5_2024-03-12T15:00:00+01:00.mp4", "cam5"),
        ("cam5_20240312T100000-0400.mp4", "cam5"),
        ("cam5_20240312_140000-20240312_150000.mp4", "cam5"),
        ("cam5_20240312_140000-150000.mp4", "cam5"),
    ],
)
def test_built_in_patterns_give_camera_and_time(name: str, camera: str | None) -> None:
    assert found(name) == (camera, MOMENT)


@pytest.mark.parametrize("name", ["holiday.mp4", "20241399_140000.mp4", "20240312.mp4", "1234567890123456.mp4"])
def test_names_without_a_time_give_none(name: str) -> None:
    assert found(name)[1] is None


def test_camera_is_found_in_names_without_a_time() -> None:
    assert found("cam03.mp4")[0] == "cam03"
    assert found("shop_entrance/clip1.mp4")[0] == "shop_entrance"
    assert found("2024/videos/clip1.mp4")[0] is None


def test_fraction_of_a_second_is_kept() -> None:
    assert found("cam5_20240312_140000.250.mp4")[1] == MOMENT + 0.25
    assert found("cam5_20240312140000250.mp4")[1] == MOMENT + 0.25


@pytest.mark.parametrize(
    ("name", "camera"), [("cam01/frame_0001.jpg", "cam01"), ("images/1.png", None), ("DSC_0042.JPG", None)]
)
def test_the_folder_is_the_camera_of_every_picture_in_it(name: str, camera: str | None) -> None:
    source = Source(f"/a/{name}", name, "image")
    assert CaptureMetadataRules(CaptureMetadata()).apply(source).camera == camera


def test_times_are_read_in_the_zone_and_stored_as_utc() -> None:
    assert found("cam1_20240312_150000.mp4", timezone="Europe/Berlin")[1] == MOMENT
    assert found("cam1_20240712_160000.mp4", timezone="Europe/Berlin")[1] == (
        dt.datetime(2024, 7, 12, 14, tzinfo=dt.UTC).timestamp()
    )
    assert found("cam1_20240312T140000Z.mp4", timezone="Europe/Berlin")[1] == MOMENT


def test_own_pattern_is_tried_first_and_may_be_a_regular_expression() -> None:
    name = "12.03.24-14h00m00 gate 20200101_000000.mp4"
    assert found(name)[1] != MOMENT
    assert found(name, time_pattern="%d.%m.%y-%Hh%Mm%S {camera} ") == ("gate", MOMENT)
    expression = r"(?P<day>\d\d)\.(?P<month>\d\d)\.(?P<year2>\d\d)-(?P<hour>\d\d)h(?P<minute>\d\d)"
    assert found(name, time_pattern=expression)[1] == MOMENT
    assert found(f"cam9/{MOMENT:.0f}.mp4", time_pattern="{camera}/%s") == ("cam9", MOMENT)


@pytest.mark.parametrize("pattern", ["%Y-%m-%d", "%Q", "(?P<year>[0-9", "nothing"])
def test_bad_pattern_is_a_usage_error(pattern: str) -> None:
    with pytest.raises(UsageError, match="time-pattern"):
        CaptureMetadataRules(CaptureMetadata(time_pattern=pattern))


def test_bad_zone_and_bad_start_time_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="Mars/Base"):
        CaptureMetadataRules(CaptureMetadata(timezone="Mars/Base"))
    with pytest.raises(UsageError, match="--start-time"):
        CaptureMetadataRules(CaptureMetadata(start_time="yesterday"))


def test_manifest_wins_over_options_and_options_over_names(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("path,camera,start_time\nday/a.mp4,door,2024-03-12T15:00:00+01:00\nb_20200101_000000.mp4,,\n")
    settings = {"manifest": manifest, "camera": "all", "start_time": "2021-01-01T00:00:00"}
    assert found("day/a.mp4", **settings) == ("door", MOMENT)
    other = dt.datetime(2021, 1, 1, tzinfo=dt.UTC).timestamp()
    assert found("b_20200101_000000.mp4", **settings) == ("all", other)
    assert found("c_20200101_000000.mp4", timezone="UTC")[0] == "c"


def test_manifest_paths_may_be_absolute_or_relative_to_it_and_unused_ones_are_told(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    lines = ["path,camera,start_time", f"{tmp_path}/x/a.mp4,one,", "x/b.mp4,two,", "x/missing.mp4,three,"]
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    rules = CaptureMetadataRules(CaptureMetadata(manifest=manifest))
    assert rules.apply(Source(f"{tmp_path}/x/a.mp4", "a.mp4", "video")).camera == "one"
    assert rules.apply(Source(f"{tmp_path}/x/b.mp4", "b.mp4", "video")).camera == "two"
    assert rules.unused() == ["x/missing.mp4"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,camera,start_time\na.mp4,x,\nb.mp4,y,noon\n", "row 3.*noon"),
        ("path,camera,start_time\na.mp4,x,\na.mp4,y,\n", "row 3.*already"),
        ("path,camera,start_time\n,x,\n", "row 2.*empty"),
        ("path,camera,start_time\na.mp4,x\n", "row 2.*columns"),
        ("file,cam\na.mp4,x\n", "columns path,camera,start_time"),
        ("", "columns path,camera,start_time"),
    ],
)
def test_bad_manifest_is_a_usage_error_with_its_row(tmp_path: Path, text: str, says: str) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(text)
    with pytest.raises(UsageError, match=says):
        CaptureMetadataRules(CaptureMetadata(manifest=manifest))


def test_missing_or_undecodable_manifest_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="does not exist"):
        CaptureMetadataRules(CaptureMetadata(manifest=tmp_path / "none.csv"))
    (tmp_path / "latin.csv").write_bytes(b"path,camera,start_time\n\xff\xfe,a,\n")
    with pytest.raises(UsageError, match="UTF-8"):
        CaptureMetadataRules(CaptureMetadata(manifest=tmp_path / "latin.csv"))


def test_clocks_that_were_never_set_are_not_believed() -> None:
    assert plausible_iso("1904-01-01T00:00:00.000000Z") is None
    assert plausible_iso("1970-01-01T00:00:00Z") is None
    assert plausible_iso("no time") is None
    assert plausible_iso("2024-03-12T14:00:00.000000Z") == MOMENT
