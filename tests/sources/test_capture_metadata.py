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


LATER = dt.datetime(2024, 3, 12, 14, 0, 10, tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("name", "camera", "start"),
    [
        ("recordings/2024-03-12/14/front_door/00.10.mp4", "front_door", LATER),
        ("Cam1/20240312PM/Cam120240312-140000-1710252000.mp4", "Cam1", MOMENT),
        ("MIJIA_RECORD_VIDEO/2024031214/00M10S_1710252010.mp4", None, LATER),
        ("record/2024Y03M12D14H/00M10S60.mp4", None, LATER),
        ("2024-03-12_14-00-00-front.mp4", "front", MOMENT),
        ("2024_0312_140000_001.mp4", None, MOMENT),
        ("Front Door 3-13-2024, 2.00.00 PM - 3-13-2024, 3.00.00 PM.mp4", "Front Door", MOMENT + 86_400),
        ("13-03-2024_14-00-00.avi", None, MOMENT + 86_400),
        ("03-13-2024_14-00-00.avi", None, MOMENT + 86_400),
        ("hall_2024-03-12_14-00.mp4", "hall", MOMENT),
        ("hall_20240312_1400.mp4", "hall", MOMENT),
        ("240312_140000.mp4", None, MOMENT),
        ("A240312_140000_140100.264", None, MOMENT),
        ("2024-03-12T15_00_00+01_00.mp4", None, MOMENT),
        ("cam2_20240311_240000.mp4", "cam2", MOMENT - 14 * 3600),
        ("1710252000123.mp4", None, MOMENT + 0.123),
        ("entrance_1710252000.mp4", "entrance", MOMENT),
        ("[01]Cam 1-2024_03_12-14_00_00.avi", "Cam 1", MOMENT),
        ("2024年03月12日14时00分00秒.mp4", None, MOMENT),
        ("cam1 2024-03-12 02-00-00 PM.mp4", "cam1", MOMENT),
        ("cam2_20230229_120000.mp4", "cam2", None),
        ("ch01_00000000001000000.mp4", "ch01", None),
        ("0-140000-150000.mp4", None, None),
    ],
)
def test_recorders_write_names_in_their_own_ways(name: str, camera: str | None, start: float | None) -> None:
    assert found(name) == (camera, start)


def test_frigate_writes_in_utc() -> None:
    assert found("2024-03-12/14/door/00.00.mp4", timezone="Europe/Berlin") == ("door", MOMENT)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("12-03-2024_14-00-00.avi", "read day first"),
        ("Gate 3-12-2024, 14.00.00 UTC - 3-12-2024, 15.00.00 UTC.mp4", "read month first"),
        ("cam1_20780312_140000.mp4", "lies in the future"),
        ("13-03-2024_14-00-00.avi", None),
        ("03-03-2024_14-00-00.avi", None),
    ],
)
def test_what_a_name_leaves_open_is_said(name: str, says: str | None) -> None:
    remark = CaptureMetadataRules(CaptureMetadata()).apply(Source(f"/a/{name}", name, "video")).remark
    assert (remark is None) if says is None else says in str(remark)


def test_pictures_are_numbered_by_four_digits_and_those_are_no_time() -> None:
    source = Source("/a/IMG_20240312_0815.jpg", "IMG_20240312_0815.jpg", "image")
    assert CaptureMetadataRules(CaptureMetadata()).apply(source).start_time is None


def test_what_was_known_is_counted_by_where_it_comes_from() -> None:
    rules = CaptureMetadataRules(CaptureMetadata(time_pattern="{camera}@%s"))
    for name in ("a@1710252000123.mp4", "cam1_20240312_140000.mp4", "holiday.mp4"):
        source = rules.apply(Source(f"/a/{name}", name, "video"))
        assert source.start_time is None or int(source.start_time) == MOMENT
    assert rules.matched == 1
    assert rules.clocks == {"name": 2, "unknown": 1}
    assert rules.cameras == {"name": 2, "unknown": 1}


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
