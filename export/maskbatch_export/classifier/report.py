"""Reports a person can read: Markdown with images beside it, and the same as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from maskbatch.web.tables import markdown_table

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:.25em .6em;text-align:right}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}code{background:#f3f3f3;padding:0 .2em}"
    "pre{background:#f3f3f3;padding:.6em;overflow:auto}"
)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; floats get three decimals."""
    shown = [[f"{value:.3f}" if isinstance(value, float) else str(value) for value in row] for row in rows]
    return markdown_table(header, shown) + "\n"


def write_report(path: Path, title: str, text: str) -> tuple[Path, Path]:
    """Write ``path.md`` and ``path.html``.

    Args:
        path: where, without suffix; images that `text` shows lie beside it.
        title: of the page.
        text: Markdown without the title.

    Returns:
        The two files.
    """
    from markdown_it import MarkdownIt

    markdown, page = path.with_suffix(".md"), path.with_suffix(".html")
    path.parent.mkdir(parents=True, exist_ok=True)
    full = f"# {title}\n\n{text}"
    markdown.write_text(full, encoding="utf-8")
    body = MarkdownIt("commonmark").enable("table").render(full)
    for picture in path.parent.glob("*.png"):
        data = base64.b64encode(picture.read_bytes()).decode()
        body = body.replace(f'src="{picture.name}"', f'src="data:image/png;base64,{data}"')
    head = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"
    )
    page.write_text(f"{head}<body>{body}</body></html>\n", encoding="utf-8")
    return markdown, page
