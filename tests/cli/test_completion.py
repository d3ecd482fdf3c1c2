"""Completion in real shells in a real terminal: installed by the command itself, and quick enough not to be noticed."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
LIMIT_S = 0.5
PROMPT = "ready>"


class Terminal:
    """A shell in tmux, with a server and a home folder of its own."""

    def __init__(self, shell: str, home: Path) -> None:
        self._socket = str(home / f"tmux-{time.monotonic_ns()}")  # not an old one, whose server may still be ending
        self._environment = {
            "HOME": str(home),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "TERM": "screen",
            "LANG": "C.UTF-8",
        }
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "40", "-c", str(home), shell)

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", self._socket, *arguments]
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=True, timeout=30
        ).stdout

    def send(self, *keys: str) -> None:
        """Press these keys; a word is typed letter by letter."""
        self._tmux("send-keys", "--", *keys)

    def wait_for(self, text: str, timeout_s: float = 30.0) -> float:
        """Seconds until the screen shows a text."""
        begin = time.monotonic()
        while text not in (screen := self._tmux("capture-pane", "-p")):
            assert time.monotonic() - begin < timeout_s, f"no {text!r} on the screen:\n{screen}"
            time.sleep(0.02)
        return time.monotonic() - begin

    def close(self) -> None:
        self._tmux("kill-server")


@pytest.fixture(params=["bash", "zsh", "fish"])
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    shell = request.param
    for program in ("tmux", shell):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    # Typer finds out which shell it is by the name of the process that called; prompts differ, so that one is set.
    (tmp_path / ".bashrc").write_text(f"PS1='{PROMPT}'\n")
    (tmp_path / ".zshrc").write_text(f"PS1='{PROMPT}'\n")
    (tmp_path / ".config/fish").mkdir(parents=True)
    (tmp_path / ".config/fish/config.fish").write_text(
        f"function fish_prompt; echo -n '{PROMPT}'; end\nset -g fish_greeting\n"
    )
    (tmp_path / "holiday.jpg").write_bytes(b"")
    terminal = Terminal(shell, tmp_path)
    terminal.wait_for(PROMPT)
    terminal.send("maskbatch --install-completion", "Enter")
    terminal.wait_for("completion installed in")
    terminal.close()
    terminal = Terminal(shell, tmp_path)
    terminal.wait_for(PROMPT)
    yield terminal
    terminal.close()


def test_commands_options_choices_and_files_are_completed(terminal: Terminal) -> None:
    terminal.send("maskbatch sc", "Tab")
    terminal.wait_for("maskbatch scan")
    terminal.send("--skip-d", "Tab")
    terminal.wait_for("maskbatch scan --skip-duplicates")
    terminal.send("--executor proc", "Tab")
    terminal.wait_for("--executor processes")
    terminal.send("holi", "Tab")
    terminal.wait_for("holiday.jpg")


WORDS = ["maskbatch ", "maskbatch scan --", "maskbatch scan --gate ", "maskbatch report --f"]


def complete(words: str, *python: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """What a press of the tab key runs, and the seconds of CPU that it takes: others on a busy machine do not count."""
    environment = {
        **os.environ,
        "_MASKBATCH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, *python, str(BIN / "maskbatch")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("words", WORDS)
def test_a_press_of_the_tab_key_is_answered_at_once(words: str) -> None:
    taken = []
    for _ in range(5):
        done, seconds = complete(words)
        assert done.stdout.strip(), done.stderr
        taken.append(seconds)
        if seconds < LIMIT_S / 2:  # fish asks twice
            break
    assert min(taken) < LIMIT_S / 2, taken


@pytest.mark.parametrize("words", WORDS)
def test_completion_loads_nothing_heavy(words: str) -> None:
    done, _ = complete(words, "-X", "importtime")
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert loaded & {"pydantic", "rich", "numpy", "pyarrow", "cv2", "av", "onnxruntime", "pandas"} == set()


def test_a_broken_settings_file_does_not_break_completion(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "MASKBATCH_CONFIG": str(tmp_path / "missing.toml"),
        "_MASKBATCH_COMPLETE": "complete_bash",
        "COMP_WORDS": "maskbatch scan --det",
        "COMP_CWORD": "2",
    }
    done = subprocess.run([BIN / "maskbatch"], env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["--detector", "--det-size"]
