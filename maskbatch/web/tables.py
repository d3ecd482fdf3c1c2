"""One table, written for people in Markdown, for programs in JSON; pages render the same cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Format = Literal["text", "integer", "percent", "decimal", "p", "duration"]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with typed columns.

    Attributes:
        title: what the rows are.
        head: names of the columns.
        formats: one per column: how its numbers are shown (shares are 0 to 1, durations are seconds).
        rows: cells; None is shown as a dash, and text is text whatever the column's format.
    """

    title: str
    head: tuple[str, ...]
    formats: tuple[Format, ...]
    rows: tuple[tuple[Any, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with the numbers as they are."""
        return {"title": self.title, "columns": list(self.head), "rows": [list(row) for row in self.rows]}

    def markdown(self) -> str:
        """The table alone, without its title."""
        rows = [[shown(cell, kind) for cell, kind in zip(row, self.formats, strict=True)] for row in self.rows]
        return markdown_table(self.head, rows)


def shown(cell: Any, kind: Format) -> str:
    """A cell as English text."""
    if cell is None:
        return "–"
    if isinstance(cell, str) or kind == "text":
        return str(cell)
    if kind == "percent":
        return f"{100 * cell:.1f} %"
    if kind == "decimal":
        return f"{cell:.2f}"
    if kind == "p":
        return "< 0.001" if cell < 0.001 else f"{cell:.3f}"
    if kind == "duration":
        return f"{cell / 3600:,.1f} h" if cell >= 3600 else f"{cell:,.1f} s"
    return f"{round(cell):,}"


def counted(number: float, singular: str, plural: str) -> str:
    """``1 person``, ``2,000 people``."""
    return f"{number:,.0f} {singular if round(number) == 1 else plural}"


def markdown_table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table with its columns aligned in the source; cells cannot break out of their column."""
    texts = [[_plain(cell) for cell in row] for row in (head, *rows)]
    widths = [max(3, *(len(row[column]) for row in texts)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(texts[0]), "| " + " | ".join("-" * width for width in widths) + " |", *map(line, texts[1:])])


def plain_markdown(text: str) -> str:
    """A text that comes from outside (a file's name), so that Markdown shows it as it is: no markup, no new line."""
    kept = "".join(c if c.isprintable() else " " for c in text)
    return "".join(f"\\{c}" if c in "\\`*_[]<>|" else c for c in kept)


def _plain(cell: Any) -> str:
    return " ".join(str(cell).split()).replace("|", "\\|").replace("<", "&lt;") if isinstance(cell, str) else str(cell)
