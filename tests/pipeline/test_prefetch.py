"""The queue between decoding and the models: bounded in bytes, in order, and nobody is left waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskbatch.pipeline.prefetch import ByteQueue, Closed


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_everything_comes_out_in_order_and_never_too_much_is_held(sizes: list[int], limit: int) -> None:
    queue: ByteQueue[tuple[int, int]] = ByteQueue(limit)

    def produce() -> None:
        for index, size in enumerate(sizes):
            queue.put((index, size), size)
            assert queue._held <= max(limit, size)
        queue.finish()

    thread = in_thread(produce)
    assert list(queue) == list(enumerate(sizes))
    thread.join(20)
    assert not thread.is_alive()


def test_an_item_larger_than_the_limit_fits_alone() -> None:
    queue: ByteQueue[str] = ByteQueue(10)
    queue.put("large", 1000)
    assert next(iter(queue)) == "large"


def test_a_waiting_producer_is_told_that_the_consumer_left() -> None:
    queue: ByteQueue[int] = ByteQueue(1)
    raised: list[bool] = []

    def produce() -> None:
        try:
            for number in range(100):
                queue.put(number, 1)
        except Closed:
            raised.append(True)

    thread = in_thread(produce)
    assert next(iter(queue)) == 0
    queue.close()
    thread.join(20)
    assert raised == [True]


def test_the_producers_exception_arrives_after_its_items() -> None:
    queue: ByteQueue[int] = ByteQueue(10)
    queue.put(1, 1)
    queue.finish(ZeroDivisionError("in the decoder"))
    items = iter(queue)
    assert next(items) == 1
    with pytest.raises(ZeroDivisionError, match="in the decoder"):
        next(items)
