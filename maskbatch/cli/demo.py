"""`maskbatch demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT_FOLDER = Path("maskbatch-demo")
EVERY_S = 0.2
SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", short_help="Make a few images and a video, scan them, show the table.")(demo)


def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to write to; what the demo wrote before is replaced.")
    ] = DEFAULT_FOLDER,
) -> None:
    """Write a few images and a video, scan them, and show the table and where the annotated files are.

    The images are made from a photograph that comes with scikit-image, with masks drawn on it; no network is needed.
    """
    from rich.console import Console

    from maskbatch import read_results, scan
    from maskbatch.cli.reporters import make_reporter
    from maskbatch.diagnose.demo import make_demo_media
    from maskbatch.errors import UsageError

    media, out, annotated = folder / "media", folder / "results.parquet", folder / "annotated"
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder")
    if folder.exists() and any(folder.iterdir()) and not (media / "one/no_mask.jpg").exists():
        raise UsageError(f"{folder} exists and is not the demo's; name a new folder")
    make_demo_media(media)
    reporter = make_reporter("auto")
    summary = scan([media], out, overwrite=True, restart=True, reporter=reporter, annotate=annotated, every_s=EVERY_S)
    console = Console()
    if not console.is_terminal:  # a log has no width of its own; 80 columns would cut the names
        console.width = 120
    rows = read_results(out).to_dict("records")
    console.print(_table(rows[:SHOWN]))
    if len(rows) > SHOWN:
        console.print(f"… and {len(rows) - SHOWN} more rows of the video", highlight=False)
    console.print(f"media      {media}", highlight=False, soft_wrap=True)
    console.print(
        f"results    {out} ({summary.faces} faces in {summary.inputs} files)", highlight=False, soft_wrap=True
    )
    console.print(f"annotated  {annotated}", highlight=False, soft_wrap=True)
    console.print(f'read it    pandas.read_parquet("{out}")', highlight=False, soft_wrap=True)
    raise typer.Exit(summary.exit_code)


def _table(rows: list[dict[Any, Any]]) -> Table:
    """The rows as a Rich table; nothing in it is taken for markup."""
    from rich.table import Table
    from rich.text import Text

    from maskbatch.cli.reporters import printable

    table = Table(title="results.parquet", title_justify="left")
    for name in ("source", "time_s", "box", "score", "label", "confidence"):
        table.add_column(name, justify="left" if name in ("source", "label") else "right", no_wrap=True)
    for row in rows:
        time = "" if row["time_s"] is None or row["time_s"] != row["time_s"] else f"{row['time_s']:.2f}"
        box = " ".join(f"{row[side]:.0f}" for side in ("x1", "y1", "x2", "y2"))
        table.add_row(
            Text(printable(str(row["source"]))),
            time,
            box,
            f"{row['score']:.2f}",
            str(row["label"]),
            f"{row['confidence']:.2f}",
        )
    return table
