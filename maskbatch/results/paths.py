"""Where a scan writes: the names of its files, from the name of the result."""

from __future__ import annotations

from dataclasses import dataclass

from maskbatch.errors import UsageError

ENDING = ".parquet"


@dataclass(frozen=True, slots=True)
class OutputPaths:
    """The files of one result, as names below `folder` (a path or a URL).

    Attributes:
        folder: the store in which all of them lie.
        stem: ``results`` for ``results.parquet``.
        dataset: the result is a folder, partitioned, in place of one file.
    """

    folder: str
    stem: str
    dataset: bool = False

    @classmethod
    def of(cls, out: str) -> OutputPaths:
        """From `--out`; raises UsageError unless it ends in ``.parquet`` or ``/``."""
        dataset = out.endswith("/")
        if dataset and not out.strip("/"):
            raise UsageError(
                "--out / is the root of the file system; name a file that ends in .parquet, or a folder that ends in /"
            )
        folder, _, name = out.rstrip("/").rpartition("/")
        if out.startswith("/") and not folder:
            folder = "/"
        if not dataset and (not name.endswith(ENDING) or name == ENDING):
            raise UsageError(f"--out {out}: name a file that ends in .parquet, or a folder that ends in /")
        return cls(folder or ".", name.removesuffix(ENDING), dataset)

    @property
    def results(self) -> str:
        return f"{self.stem}/" if self.dataset else f"{self.stem}.parquet"

    @property
    def inputs(self) -> str:
        return f"{self.stem}.inputs.parquet"

    @property
    def tracks(self) -> str:
        return f"{self.stem}.tracks.parquet"

    @property
    def run(self) -> str:
        return f"{self.stem}.run.json"

    @property
    def corrections(self) -> str:
        """What people put right; not written by a scan, and never removed by one."""
        return f"{self.stem}.corrections.csv"

    @property
    def work(self) -> str:
        return f"{self.stem}.work"

    @property
    def files(self) -> tuple[str, ...]:
        """All that a scan may write here, without the work folder."""
        return self.results, self.inputs, self.tracks, self.run

    def path(self, name: str) -> str:
        """A name with its folder, for people and for opening."""
        return name if self.folder == "." else f"{self.folder.rstrip('/')}/{name}"
