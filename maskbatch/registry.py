"""Variants by name: our own, and those that other packages bring through entry points.

A registry maps a name to where its object is defined, so that a scan imports only the variant that it uses.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from maskbatch.errors import MaskbatchError, UsageError

Variant = TypeVar("Variant")


class Registry(Generic[Variant]):
    """Named variants of one kind.

    Args:
        kind: what they are, for messages (``detector family``).
        builtin: name → ``module:attribute``.
        group: entry-point group in which other packages name theirs; empty for none. A built-in name cannot be replaced.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str], group: str = "") -> None:
        self.kind = kind
        self.group = group
        self._builtin = dict(builtin)

    @property
    def names(self) -> tuple[str, ...]:
        """All names: the built-in ones first, then those of other packages."""
        return (*self._builtin, *sorted(set(self._plugins) - set(self._builtin)))

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self._plugins

    def load(self, name: str) -> Variant:
        """The variant of this name.

        Raises:
            UsageError: there is none, or the package that brings it cannot be imported.
        """
        if name in self._builtin:
            module, _, attribute = self._builtin[name].partition(":")
            found: Variant = getattr(importlib.import_module(module), attribute)
            return found
        point = self._plugins.get(name)
        if point is None:
            raise UsageError(f"there is no {self.kind} called {name!r}: use {', '.join(self.names)}")
        try:
            plugin: Variant = point.load()
        except MaskbatchError:
            raise
        except Exception as error:  # another package's code
            brought = f" of the package {point.dist.name}" if point.dist else ""
            raise UsageError(
                f"the {self.kind} {name!r}{brought} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        return plugin

    @cached_property
    def _plugins(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)} if self.group else {}
