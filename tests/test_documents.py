"""What the documents say exists: the files and headings that they link to, and the options in their commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from maskbatch.cli import build_app
from maskbatch.cli.reference import commands

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "export/**/*.md", "maskbatch/models/*.md")
    for path in ROOT.glob(pattern)
    if ".venv" not in path.parts
)


def prose(document: Path) -> str:
    """The text without its blocks of code."""
    return re.sub(r"(?ms)^ *```.*?^ *```", "", document.read_text())


@lru_cache
def anchors(document: Path) -> frozenset[str]:
    """Headings as they are linked to."""
    headings = re.findall(r"(?m)^#+ (.+)$", prose(document))
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def test_links_lead_to_files_and_headings() -> None:
    missing = []
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
            if "://" in target:
                continue
            name, _, anchor = target.partition("#")
            path = document.parent / name if name else document
            if not path.exists() or (anchor and anchor not in anchors(path)):
                missing.append(f"{document.relative_to(ROOT)} → {target}")
    assert missing == []


def test_every_document_is_reached_from_the_index() -> None:
    linked = {
        (ROOT / "docs" / target).resolve()
        for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / "docs" / "index.md").read_text())
    }
    lost = [path.name for path in ROOT.glob("docs/*.md") if path not in linked and path.name != "index.md"]
    assert lost == []


@pytest.mark.parametrize("command", ["scan", "report"])
def test_the_settings_in_the_documents_are_read(command: str, tmp_path: Path) -> None:
    (block,) = re.findall(r"(?ms)^```toml\n(.*?)^```", (ROOT / "docs" / "settings.md").read_text())
    (tmp_path / "example.toml").write_text(block)
    result = CliRunner().invoke(build_app(), [command, "--config", str(tmp_path / "example.toml"), "--show-config"])
    assert result.exit_code == 0, result.exception
    assert "example.toml" in result.output


def typed_commands(document: Path) -> Iterator[tuple[str, list[str]]]:
    """Every `maskbatch …` in the blocks and in the running text, with its words."""
    text = document.read_text().replace("\\\n", " ")
    for found in re.finditer(r"(?m)(?:^|[`$ ])(maskbatch [a-z][^`\n]*)", text):
        line = re.split(r" (?:#|>|&&|\|) ?", found[1])[0]
        try:
            yield line, shlex.split(line)
        except ValueError:  # an apostrophe in a sentence: no command
            continue


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_in_commands_exist(document: Path) -> None:
    if document.name == "CHANGELOG.md":
        pytest.skip("tells of options that were")
    known = {
        command.name: {name for parameter in command.parameters for name in parameter.names} for command in commands()
    }
    wrong = []
    for line, words in typed_commands(document):
        name = next((" ".join(words[:n]) for n in (3, 2) if " ".join(words[:n]) in known), None)
        if name is not None:
            options = [word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-zA-Z][\w-]*(=.*)?", word)]
            wrong += [
                f"{option} in: {line}" for option in options if option not in known[name] and option not in ("--help",)
            ]
    assert wrong == []
