"""What a file's name and folders say: the camera, and the wall-clock time of the first frame, as recorders write them.

Each way of writing is one `NameFormat`, tried in order; a new one is one entry. A time is taken only where it can be a time of recording: not
before 1990, not later than tomorrow. Where day and month could be exchanged, the reading is said.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from dataclasses import dataclass

EARLIEST = dt.datetime(1990, 1, 1, tzinfo=dt.UTC)
NEEDED = frozenset({"month", "day", "hour", "minute"})


@dataclass(frozen=True, slots=True)
class NameFacts:
    """What a name says.

    Attributes:
        camera: None where it names none.
        start_time: POSIX seconds, None where it gives none.
        remark: what a person should know of how the time was read.
    """

    camera: str | None = None
    start_time: float | None = None
    remark: str | None = None


@dataclass(frozen=True, slots=True)
class NameFormat:
    """One way of writing a time into a name.

    Attributes:
        written_by: who does.
        pattern: with the groups ``year month day hour minute second fraction millis offset meridiem epoch camera``; ``first`` and
            ``other`` are day and month in an order that numbers over 12 tell. Searched in the name without its extension.
        in_path: search folders and name, not the name alone.
        utc: such times are in UTC, whatever the zone of the scan.
        month_first: how ``first`` and ``other`` are read where numbers do not tell.
        exact: to the second. Formats that are not are taken of videos alone: pictures are numbered by four digits.
    """

    written_by: str
    pattern: re.Pattern[str]
    in_path: bool = False
    utc: bool = False
    month_first: bool = False
    exact: bool = True


def _format(written_by: str, pattern: str, **more: bool) -> NameFormat:
    return NameFormat(written_by, re.compile(pattern, re.VERBOSE | re.IGNORECASE), **more)


_TIME = r"(?P<hour>\d\d) (?P<ts>[-_.:h꞉]?) (?P<minute>\d\d) (?:(?P=ts)|m) (?P<second>\d\d)"
_MERIDIEM = r"(?:[ _]?(?P<meridiem>[ap]m)(?![a-z]))?"
# What follows an offset's sign must not be the digits of a second time.
_OFFSET = r"(?P<offset>Z|(?<=\d)[+](?:0\d|1[0-4])[:_]?[0-5]\d(?!\d)|(?<=\d)-(?:0\d|1[0-4]):?(?:00|30|45)(?!\d))?"
_GAP = r"(?P<gap>[T_\-\ .+,]{0,3}|\ at\ |\ ?-\ )"

NAME_FORMATS: tuple[NameFormat, ...] = (
    _format("Synology", r"^(?P<camera>.+?) 20\d{6} - \d{6} - (?P<epoch>1\d{9})$"),
    _format("Xiaomi", r"^\d\dM\d\dS_(?P<epoch>1\d{9})$"),
    _format(
        "Yi",
        r"(?:^|/)(?P<year>\d{4})Y(?P<month>\d\d)M(?P<day>\d\d)D(?P<hour>\d\d)H/(?P<minute>\d\d)M(?P<second>\d\d)S\d*$",
        in_path=True,
    ),
    _format(
        "Frigate",
        r"(?:^|/)(?P<year>20\d\d)-(?P<month>\d\d)-(?P<day>\d\d)/(?P<hour>\d\d)/(?P<camera>[^/]+)/(?P<minute>\d\d)\.(?P<second>\d\d)$",
        in_path=True,
        utc=True,
    ),
    _format(
        "UniFi Protect",
        r"""^(?P<camera>.*?)\ ? (?<!\d)(?P<first>\d{1,2})-(?P<other>\d{1,2})-(?P<year>20\d\d),\ (?P<hour>\d{1,2})[.:](?P<minute>\d\d)
        [.:](?P<second>\d\d) (?:\ ?(?P<meridiem>[ap]m))? (?:\ (?P<offset>UTC|GMT)\b(?![+-]))?""",
        month_first=True,
    ),
    # A date and a time of day next to each other: 20240312_140000, 2024-03-12 14.00.00, 20240312T140000.250Z, 20240312140000123.
    _format(
        "most recorders",
        rf"""(?<!\d) (?P<year>(?:19|20)\d\d) (?P<ds>[-_.]?) (?P<month>\d\d) (?P=ds) (?P<day>\d\d)
        {_GAP} {_TIME} (?:[.,](?P<fraction>\d{{1,6}})(?=\D|$) | (?P<millis>\d{{3}})(?!\d))? {_MERIDIEM} {_OFFSET} (?!\d)""",
    ),
    _format(
        "dashboard cameras",
        r"(?<!\d)(?P<year>20\d\d)_(?P<month>\d\d)(?P<day>\d\d)_(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)(?!\d)",
    ),
    _format(
        "recorders set to Chinese",
        r"(?<!\d)(?P<year>20\d\d)年(?P<month>\d\d?)月(?P<day>\d\d?)日[ _]?(?P<hour>\d\d?)时(?P<minute>\d\d?)分(?P<second>\d\d?)秒",
    ),
    _format(
        "day or month first",
        rf"""(?<!\d) (?P<first>\d\d) (?P<ds>[-_.]) (?P<other>\d\d) (?P=ds) (?P<year>(?:19|20)\d\d) {_GAP}
        {_TIME.replace("ts", "ts2")} {_MERIDIEM} {_OFFSET} (?!\d)""",
    ),
    _format(
        "cheap cameras, two digits of the year",
        r"(?<![0-9]) (?P<year2>\d\d)(?P<month>\d\d)(?P<day>\d\d)_(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d) (?!\d)",
    ),
    # Dahua, motionEye: the date is a folder, the file is named by its time (2024-03-12/001/dav/14/14.00.00-15.00.00[R].dav).
    _format(
        "Dahua",
        r"""(?:^|/) [^/]*? (?<!\d)(?P<year>(?:19|20)\d\d)[-_.]?(?P<month>\d\d)[-_.]?(?P<day>\d\d)(?!\d) [^/]*/ (?:[^/]+/)*
        (?P<prefix>[^/\d]*) (?P<hour>\d\d)(?P<ts>[-_.:]?)(?P<minute>\d\d)(?P=ts)(?P<second>\d\d)(?!\d)[^/]*$""",
        in_path=True,
    ),
    _format(
        "without seconds",
        r"""(?<!\d) (?P<year>(?:19|20)\d\d) (?P<ds>[-_.]?) (?P<month>\d\d) (?P=ds) (?P<day>\d\d) [T_\-\ ]
        (?P<hour>\d\d) [-_.:h]? (?P<minute>\d\d) (?![\d.]\d|\d)""",
        exact=False,
    ),
    _format("seconds or milliseconds since 1970", r"(?<!\d)(?P<epoch>1\d{9}(?:\d{3})?)(?!\d)"),
)


def read_name(name: str, zone: dt.tzinfo, *, video: bool = True) -> NameFacts:
    """Camera and time by a file's name.

    Args:
        name: path relative to its root, ``/``-separated.
        zone: of times without an offset.
        video: whether it is one; of pictures only formats with seconds are read.
    """
    path = name.rpartition(".")[0] if "." in name.rpartition("/")[2] else name
    stem = path.rpartition("/")[2]
    remark = None
    for form in NAME_FORMATS:
        if not (form.exact or video):
            continue
        for match in form.pattern.finditer(path if form.in_path else stem):
            start, said = _start(match, form, zone)
            remark = remark or said
            if start is not None:
                return NameFacts(_camera(match, stem) or folder_camera(name), start, said)
    return NameFacts(_camera_word(stem) or folder_camera(name), None, remark)


def _start(match: re.Match[str], form: NameFormat, zone: dt.tzinfo) -> tuple[float | None, str | None]:
    """Seconds and a remark; None where the numbers are no time or cannot be the time of a recording."""
    groups, remark = match.groupdict(), None
    if groups.get("first"):
        groups, remark = _day_and_month(groups, form)
    start = moment(groups, dt.UTC if form.utc else zone)
    if start is None or start < EARLIEST.timestamp():
        return None, None
    if in_future(start):
        if "epoch" in groups:  # a number that happens to be long
            return None, None
        return None, f"the time in the name ({match.group().strip(' _-')}) lies in the future and is not used"
    return start, remark


def _day_and_month(groups: dict[str, str | None], form: NameFormat) -> tuple[dict[str, str | None], str | None]:
    first, other = str(groups["first"]), str(groups["other"])
    told = int(first) > 12 or int(other) > 12 or first == other
    month_first = int(other) > 12 or (form.month_first and int(first) <= 12)
    month, day = (first, other) if month_first else (other, first)
    remark = None
    if not told:
        order, pattern = ("month", "%m-%d-%Y") if month_first else ("day", "%d-%m-%Y")
        remark = f"the date {first}-{other}-{groups['year']} in the name is read {order} first; --time-pattern {pattern}… settles it"
    return {**groups, "day": day, "month": month}, remark


def moment(groups: dict[str, str | None], zone: dt.tzinfo) -> float | None:
    """POSIX seconds of a pattern's groups; None for numbers that are no date (month 13). 24:00:00 is the next midnight."""
    found = {key: value for key, value in groups.items() if value}
    if "epoch" in found:
        return float(found["epoch"]) / (1000 if len(found["epoch"]) == 13 else 1)
    if not found.keys() >= NEEDED:
        return None
    year = int(found["year"]) if "year" in found else 2000 + int(found.get("year2", "0"))
    hour, minute, second = int(found["hour"]), int(found["minute"]), int(found.get("second", "0"))
    midnight = hour == 24 and minute == second == 0
    if "meridiem" in found:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found["meridiem"].lower() == "pm" else 0)
    fraction = found.get("fraction") or found.get("millis") or "0"
    offset = found.get("offset")
    try:
        day = dt.datetime(
            year,
            int(found["month"]),
            int(found["day"]),
            0 if midnight else hour,
            minute,
            second,
            int(fraction.ljust(6, "0")),
            tzinfo=zone if offset is None else _offset(offset),
        )
        return (day + dt.timedelta(days=midnight)).timestamp()
    except (ValueError, OverflowError):
        return None


def in_future(start: float) -> bool:
    """Whether a recording cannot have begun then yet; a day is left for clocks and zones."""
    return start > dt.datetime.now(dt.UTC).timestamp() + 86_400


def _offset(text: str) -> dt.tzinfo:
    if text.upper() in ("Z", "UTC", "GMT"):
        return dt.UTC
    digits = re.sub(r"\D", "", text[1:])
    delta = dt.timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return dt.timezone(-delta if text[0] == "-" else delta)


# -- cameras -------------------------------------------------------------------------------------------------------------

_CAMERA_WORD = re.compile(r"(?<![a-z])(?:cam(?:era)?|ch(?:annel|an)?|ipc)[ _-]?\d+", re.IGNORECASE)
_GENERAL_WORDS = """
    video videos vid clip clips rec record recording recordings footage win pxl img image images mvi mov movie dav main sub stream
    mainstream substream media archive export out data cctv nvr dvr screenshot snapshot snapshots jpegimages dcim picture pictures
    pics photo photos frames train val test cam camera mijia_record_video
"""
_NO_CAMERA = frozenset(_GENERAL_WORDS.split())
_TAIL_WORDS = frozenset({"main", "sub", "mainstream", "substream", "stream", "rec", "record", "rotating"})
_SIDE = re.compile(
    r"^[-_ ](front|back|rear|left_repeater|right_repeater|left_pillar|right_pillar)$", re.IGNORECASE
)  # the cameras of a car
_DATE_FOLDER = re.compile(r"^\d{4}Y\d\dM\d\dD|^(?:19|20)\d{6}[ap]m$", re.IGNORECASE)


def _camera(match: re.Match[str], stem: str) -> str | None:
    groups = match.groupdict()
    if groups.get("camera"):
        return camera_before(groups["camera"])
    if "prefix" in groups:
        return camera_before(groups["prefix"])
    if match.string != stem:
        return None
    side = _SIDE.match(stem[match.end() :])
    before = stem[: match.start()]
    if len(before) == 1 and before.isalpha():  # A240312…: alarm, P240312…: plan
        before = ""
    return camera_before(before) or (side.group(1) if side else _camera_word(stem[match.end() :]))


def camera_before(prefix: str) -> str | None:
    """The camera's name in front of a time: ``cam03_``, ``192.168.1.64_01_``, ``NVR_ch1_main_``, ``[01]Cam 1-``."""
    words = re.split(r"([ _\-.\[\]()]+)", re.sub(r"^\[[^\]]*\](?=.*\w)", "", prefix))
    while words and (not words[-1].strip(" _-.[]()") or words[-1].lower() in _TAIL_WORDS):
        words.pop()
    camera = "".join(words).strip(" _-.[]()")
    return None if not camera or camera.lower() in _NO_CAMERA else camera


def _camera_word(text: str) -> str | None:
    match = _CAMERA_WORD.search(text)
    return match.group() if match else None


def folder_camera(name: str) -> str | None:
    """The nearest folder that is neither a date, a number, nor a general word."""
    for folder in reversed(name.split("/")[:-1]):
        if re.search(r"[^\W\d_]", folder) and folder.lower() not in _NO_CAMERA and not _dated(folder):
            return folder
    return None


@functools.lru_cache(maxsize=4096)
def _dated(folder: str) -> bool:
    if _DATE_FOLDER.search(folder):
        return True
    return any(form.pattern.search(folder) for form in NAME_FORMATS if not form.in_path and form.exact)
