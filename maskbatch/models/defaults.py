"""The classifier that the command line takes where none is named: the packaged one, or one of the user's own.

``maskbatch models use FILE`` keeps a copy in the cache folder with its checksum, so that neither a moved nor a changed file goes unnoticed.
It is a default of the command line alone; from Python a classifier is named.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from maskbatch.errors import ModelError, UsageError
from maskbatch.models.files import file_checksum, read_header, read_model
from maskbatch.models.registry import find_model, models_folder
from maskbatch.storage.atomic import write_bytes
from maskbatch.tasks import classifier_labels

_FIX = "name the file again with `maskbatch models use FILE`, or go back with `maskbatch models use mask_mobilenet_v2`"


@dataclass(frozen=True, slots=True)
class OwnDefault:
    """A user's own classifier that is used where none is named.

    Attributes:
        file: name of the copy, in the folder `own_folder`.
        sha256: of its bytes.
        origin: path of the file that was copied.
        labels: that it tells apart.
    """

    file: str
    sha256: str
    origin: str
    labels: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The copy."""
        return own_folder() / self.file


def own_folder() -> Path:
    """Where the copies lie."""
    return models_folder() / "own"


def _choice() -> Path:
    return models_folder() / "default-classifier.json"


def use_classifier(path: Path) -> OwnDefault:
    """Make a classifier of the user's own the default.

    Raises:
        ModelError: the file is missing, not ONNX, or does not say what its outputs mean.
        OutputError: the copy cannot be written.
    """
    found = find_model(str(path), "classifier")
    header = read_header(found.path)
    if header.external:
        raise ModelError(f"{path} keeps its weights in another file; convert it to one file")
    if len(header.outputs) != 1:
        raise ModelError(f"{path} is not a classifier: it has {len(header.outputs)} outputs, not one of probabilities")
    labels = classifier_labels(header.metadata, header.output_sizes[0], path.name)
    data, checksum = read_model(found)
    own = OwnDefault(f"{found.name}-{checksum[:12]}.onnx", checksum, str(found.path), labels)
    own_folder().mkdir(parents=True, exist_ok=True)
    write_bytes(own.path, data)
    write_bytes(_choice(), (json.dumps(asdict(own), indent=1) + "\n").encode())
    return own


def use_packaged() -> None:
    """Make the packaged classifier the default again; copies stay."""
    _choice().unlink(missing_ok=True)


def own_default() -> OwnDefault | None:
    """The user's own default, as it was registered; None where there is none.

    Raises:
        ModelError: what was noted cannot be read.
    """
    try:
        noted = json.loads(_choice().read_text(encoding="utf-8"))
        return OwnDefault(Path(noted["file"]).name, noted["sha256"], noted["origin"], tuple(noted["labels"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{_choice()} cannot be read ({error!r}): {_FIX}") from None


def check_default(own: OwnDefault) -> str:
    """What is wrong with the copy, with the fix; empty if nothing is."""
    try:
        if file_checksum(own.path) == own.sha256:
            return ""
    except OSError as error:
        return f"{own.path} cannot be read ({error.strerror}): {_FIX}"
    return f"{own.path} is not the file that was chosen (another SHA-256): {_FIX}"


def default_classifier() -> str | None:
    """Path of the user's own default classifier, checked; None where the packaged one is the default.

    Raises:
        ModelError: the copy is gone or changed.
    """
    own = own_default()
    if own is None:
        return None
    if problem := check_default(own):
        raise ModelError(f"the default classifier {problem}")
    return str(own.path)


def check_name(name: str) -> None:
    """Raises UsageError where a default that is neither a file nor the packaged classifier is asked for."""
    if not name.endswith(".onnx"):
        raise UsageError(f"{name!r} is neither an ONNX file nor mask_mobilenet_v2, the packaged classifier")
