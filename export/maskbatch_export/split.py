"""The one rule that says to which part of the data an image belongs; it lives where ``maskbatch evaluate`` can reach it."""

from __future__ import annotations

from maskbatch.evaluate.split import Part, fold_of_group, part_of_group

__all__ = ["Part", "fold_of_group", "part_of_group"]
