"""Pictures of any size land in few shapes, whole, at the top left, on black."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskbatch.detect.letterbox import Bucket, fit, make_buckets, paste, scaled_size
from maskbatch.errors import UsageError

BUCKETS = make_buckets(640)
sides = st.integers(1, 5000)


def test_five_shapes_for_640() -> None:
    shapes = {(b.height, b.width) for b in BUCKETS}
    assert shapes == {(640, 640), (480, 640), (640, 480), (384, 640), (640, 384)}


@pytest.mark.parametrize("det_size", [32, 64, 96, 320, 640, 1280, 4096])
def test_sides_are_multiples_of_the_coarsest_stride(det_size: int) -> None:
    for bucket in make_buckets(det_size):
        assert bucket.height % 32 == bucket.width % 32 == 0
        assert max(bucket.height, bucket.width) == det_size


@pytest.mark.parametrize("det_size", [0, 31, 100, -32])
def test_other_sizes_are_a_usage_error(det_size: int) -> None:
    with pytest.raises(UsageError, match="multiple of 32"):
        make_buckets(det_size)


@given(sides, sides, st.sampled_from([320, 640, 1280]))
def test_smallest_bucket_that_covers_the_scaled_picture(height: int, width: int, det_size: int) -> None:
    buckets = make_buckets(det_size)
    chosen = fit(height, width, buckets)
    tall, wide = scaled_size(height, width, det_size)
    assert chosen.height >= tall
    assert chosen.width >= wide
    assert not [
        b for b in buckets if b.height >= tall and b.width >= wide and b.height * b.width < chosen.height * chosen.width
    ]


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (1080, 1920, (384, 640)),
        (720, 1280, (384, 640)),
        (480, 640, (480, 640)),
        (1920, 1080, (640, 384)),
        (9, 9, (640, 640)),
    ],
)
def test_common_shapes_waste_little(height: int, width: int, expected: tuple[int, int]) -> None:
    bucket = fit(height, width, BUCKETS)
    assert (bucket.height, bucket.width) == expected


def test_one_fixed_oblong_shape_takes_pictures_of_the_other_orientation() -> None:
    only = (Bucket(384, 640),)
    assert fit(1000, 500, only) == only[0]
    canvas = np.empty((384, 640, 3), np.uint8)
    scale_x, scale_y = paste(np.full((1000, 500, 3), 255, np.uint8), canvas)
    assert scale_x == scale_y == 0.384
    assert canvas[:, :192].min() == 255
    assert canvas[:, 192:].max() == 0


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 99))
@example(253, 421, 0)
def test_picture_is_scaled_whole_and_the_rest_is_black(height: int, width: int, seed: int) -> None:
    bucket = fit(height, width, make_buckets(320))
    image = np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)
    canvas = np.full((bucket.height, bucket.width, 3), 77, np.uint8)  # left over from another picture
    scale_x, scale_y = paste(image, canvas)
    wide, tall = round(scale_x * width), round(scale_y * height)
    # The bucket's short side is a multiple of 32: an image whose own is a fraction of a pixel more loses one pixel of the long side.
    assert max(wide, tall) in (319, 320)
    np.testing.assert_array_equal(canvas[:tall, :wide], cv2.resize(image, (wide, tall), interpolation=cv2.INTER_LINEAR))
    assert not canvas[tall:].any()
    assert not canvas[:, wide:].any()


def test_picture_of_the_right_size_is_copied() -> None:
    image = np.random.default_rng(0).integers(0, 256, (384, 640, 3), dtype=np.uint8)
    canvas = np.empty_like(image)
    assert paste(image, canvas) == (1.0, 1.0)
    np.testing.assert_array_equal(canvas, image)
