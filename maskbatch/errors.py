"""Every exception of maskbatch, as one tree.

::

    MaskbatchError                  one sentence that a person can act on, printed without a traceback
    ├── UsageError                  the command or its options are wrong                                   (exit 2)
    │   ├── InputNotFoundError      a path that was named does not exist
    │   ├── OutputExistsError       the result exists and `--overwrite` was not given
    │   └── SettingsChangedError    the work folder was made with other settings or models
    ├── OutputError                 the output cannot be written (no permission, disk full, lost folder)   (exit 1)
    │   └── LockedError             another run is writing this output
    ├── ModelError                  a model file is missing, broken, unsafe or has the wrong checksum      (exit 1)
    ├── DeviceError                 the device that was asked for is not available                         (exit 1)
    ├── MissingExtraError           an optional part is not installed; says how to install it              (exit 1)
    ├── WorkerError                 the workers cannot continue                                            (exit 1)
    └── InputError                  one input cannot be read; becomes a row, never stops a run             (exit 3)

Exit codes: 0 all inputs ok, 1 fatal, 2 usage, 3 finished but some inputs failed or are partial, 130 interrupted.
"""

from __future__ import annotations

from typing import Literal, get_args

EXIT_OK = 0
EXIT_FATAL = 1
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130

InputErrorCode = Literal[
    "not_found",  # vanished between discovery and reading
    "permission",
    "empty",
    "not_media",  # neither an image nor a video that we read
    "unsupported",  # a known format, or a variant of one, that we do not decode
    "truncated",
    "corrupt",
    "too_large",  # more pixels than --max-pixels, refused before decoding
    "special_file",  # FIFO, device, socket
    "io",  # the file system failed while reading
    "crashed",  # the decoder took its worker process down
    "hung",  # no answer within --timeout
    "out_of_memory",
    "gap",  # a camera was not seen, or nobody watched (`maskbatch watch`)
    "internal",  # a defect of maskbatch itself, recorded so that the run goes on
]
INPUT_ERROR_CODES: tuple[str, ...] = get_args(InputErrorCode)


class MaskbatchError(Exception):
    """Base of all errors that a person can fix. ``str(error)`` is one sentence with what to do."""

    exit_code = EXIT_FATAL


class UsageError(MaskbatchError):
    """The command or its options are wrong."""

    exit_code = EXIT_USAGE


class InputNotFoundError(UsageError):
    """A path that was named on the command line does not exist."""


class OutputExistsError(UsageError):
    """The result exists already and overwriting was not asked for."""


class SettingsChangedError(UsageError):
    """The work folder holds work done with other settings or models."""


class OutputError(MaskbatchError):
    """The output cannot be written."""


class LockedError(OutputError):
    """Another run holds the lock of this output."""


class ModelError(MaskbatchError):
    """A model file is missing, broken, unsafe, or not the one that was registered."""


class DeviceError(MaskbatchError):
    """The device or execution provider that was asked for cannot be had."""


class MissingExtraError(MaskbatchError):
    """An optional dependency is not installed."""


class WorkerError(MaskbatchError):
    """The worker processes cannot go on (they die before they take any work, for example)."""


class InputError(MaskbatchError):
    """One input cannot be read. It becomes a row of the inputs table; the run goes on.

    Attributes:
        code: stable, machine-readable reason (column ``error``).
        message: what a person reads (column ``message``).
    """

    exit_code = EXIT_SOME_FAILED

    def __init__(self, code: InputErrorCode, message: str) -> None:
        super().__init__(message)
        self.code: InputErrorCode = code
        self.message = message
