"""What a format is: a result goes in, files come out."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from maskbatch.results.reader import ResultReader


class ResultFormat(Protocol):
    """Writes a result for another tool. One file in this folder each, or an entry point ``maskbatch.formats`` of another package."""

    @property
    def name(self) -> str:
        """As in ``maskbatch convert --to NAME``."""

    @property
    def title(self) -> str:
        """One line for a person."""

    def write(self, result: ResultReader, out: Path) -> list[Path]:
        """Write the result into a folder that exists, in bounded memory.

        Returns:
            The files that were written.

        Raises:
            UsageError: the result cannot be read, or does not have what the format needs.
            OutputError: a file cannot be written.
        """
