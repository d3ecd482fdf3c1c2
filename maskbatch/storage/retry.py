"""Calls to servers that may be busy: tried again, later each time, where that can help."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Answer = TypeVar("Answer")

_FINAL = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
)
_FINAL_NAMES = frozenset({"NoCredentialsError", "PartialCredentialsError", "NoAuthTokenError", "ParamValidationError"})
_BUSY_STATUS = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to go on: `attempts` in all, waits of about `first_s`, twice that, four times that …, none above `longest_s`.

    Client libraries try a few times on their own before this counts as one attempt.
    """

    attempts: int = 6
    first_s: float = 0.5
    longest_s: float = 20.0


def real_cause(error: BaseException) -> BaseException:
    """The error itself; fsspec calls every failed look at a web address `FileNotFoundError`, whatever the server said."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and cause is not None and type(cause).__module__.startswith("aiohttp"):
        return cause
    return error


def is_retryable(failure: Exception) -> bool:
    """Whether the same call may succeed later: throttling, time-outs, lost connections, a server's own errors (HTTP 5xx)."""
    error = real_cause(failure)
    if isinstance(error, _FINAL) or type(error).__name__ in _FINAL_NAMES:
        return False
    status = getattr(error, "status", None)  # aiohttp's answers
    if isinstance(status, int):
        return status >= 500 or status in _BUSY_STATUS
    if isinstance(error, OSError | TimeoutError):
        return True
    # Exceptions of HTTP clients that are no OSError (aiohttp, botocore, google-auth, azure-core).
    return type(error).__module__.partition(".")[0] in {
        "aiohttp",
        "botocore",
        "aiobotocore",
        "google",
        "azure",
        "gcsfs",
    }


def retry(call: Callable[[], Answer], policy: RetryPolicy | None = None) -> Answer:
    """The answer of `call`, which must do no harm when made twice; the last error where no attempt succeeds.

    The waits have a random part, so that workers that were turned away together do not come back together.
    """
    policy = policy or RetryPolicy()
    wait_s = policy.first_s
    for attempt in range(1, policy.attempts + 1):
        try:
            return call()
        except Exception as error:
            if attempt == policy.attempts or not is_retryable(error):
                raise
        time.sleep(random.uniform(0.5, 1.0) * min(wait_s, policy.longest_s))
        wait_s *= 2
    raise AssertionError("unreachable")
