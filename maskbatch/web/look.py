"""Colours of the labels as CSS, from the task; everything else of the look stands in ``static/look.css``."""

from __future__ import annotations

from maskbatch.tasks import Task


def label_css(task: Task) -> str:
    """``--label-0`` … in the order of the task's labels."""
    colours = [f"--label-{i}:{hex_colour(look.colour)};" for i, look in enumerate(task.looks)]
    return ":root{" + "".join(colours) + "}"


def hex_colour(bgr: tuple[int, int, int]) -> str:
    """``#rrggbb`` of a colour in the order blue, green, red."""
    blue, green, red = bgr
    return f"#{red:02x}{green:02x}{blue:02x}"
