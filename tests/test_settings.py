"""Settings check themselves, so that Python users get the errors of the command line."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import maskbatch
from maskbatch.config import Execution, ModelSettings, OutputOptions, Sampling, ScanConfig, ScanOptions
from maskbatch.errors import UsageError


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        (ModelSettings, {"det_size": 100}, r"det_size \(--det-size\) must be a multiple of 32, not 100"),
        (ModelSettings, {"det_size": 0}, "at least 32 and at most 4096, not 0"),
        (ModelSettings, {"min_score": 1.5}, "at most 1, not 1.5"),
        (ModelSettings, {"min_face": -1}, "at least 0"),
        (ModelSettings, {"precision": "int4"}, "must be one of auto, fp32, fp16, int8, not 'int4'"),
        (Sampling, {"every_s": 0.0}, "must be a positive number of seconds, not 0.0"),
        (Sampling, {"every_s": math.nan}, "must be a positive number"),
        (Sampling, {"mode": "some"}, "must be one of every, keyframes, all"),
        (Sampling, {"start_s": 5.0, "end_s": 5.0}, "--end 5 s is not after --start 5 s"),
        (Execution, {"device": "tpu"}, "must be one of auto, cpu, cuda, tensorrt"),
        (Execution, {"workers": -1}, r"workers \(--workers\) must be a number of at least 0, not -1"),
        (Execution, {"workers": "two"}, "not 'two'"),
        (Execution, {"workers": True}, "not True"),
        (Execution, {"batch_size": 2000}, "at most 1024"),
        (OutputOptions, {"boxes": False}, "--no-boxes leaves nothing to draw"),
        (OutputOptions, {"redact": True}, "--redact needs --annotate DIR or --crops DIR"),
    ],
)
def test_a_wrong_value_is_one_sentence(group: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        group(**values)


def test_options_by_name_reach_their_group_together() -> None:
    config = ScanConfig().with_options(workers=3, every_s=5, detector="yunet", redact=True, annotate="out")
    assert (config.execution.workers, config.sampling.every_s, config.models.detector) == (3, 5, "yunet")
    assert (config.outputs.redact, config.outputs.annotate) == (True, Path("out"))
    with pytest.raises(UsageError, match="there is no setting called colour"):
        ScanConfig().with_options(colour="red")  # type: ignore[call-arg]


def test_every_setting_is_a_typed_option_and_every_option_a_setting() -> None:
    groups = [field.default_factory() for field in dataclasses.fields(ScanConfig)]  # type: ignore[misc]
    names = [field.name for group in groups for field in dataclasses.fields(group)]
    assert len(names) == len(set(names)), "a name in two groups could not be told apart"
    assert set(names) == set(get_type_hints(ScanOptions))


def test_an_unknown_executor_is_named_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="no executor called 'cloud': use inline, processes, ray"):
        maskbatch.scan(tmp_path, tmp_path / "r.parquet", executor="cloud")
