"""Completion in a shell: what a press of the tab key runs, twice in fish, and has to be quick."""

from __future__ import annotations

import contextlib
import os
from typing import Any

VARIABLE = "_MASKBATCH_COMPLETE"
"""Set by the script that `maskbatch --install-completion` gives the shell."""


def is_completing() -> bool:
    """Whether a shell asks for completions, and no command is to run."""
    return VARIABLE in os.environ


def skip_conversion() -> None:
    """Take the words of the command line as they are, for the rest of this process.

    Typer converts each value with an adapter of pydantic, whose import takes longer than everything else that completion needs; the
    names of options and choices do not depend on it.
    """
    from typer.core import TyperArgument, TyperOption

    def as_typed(_parameter: Any, _context: Any, value: Any) -> Any:
        return value

    for kind in (TyperOption, TyperArgument):
        kind.process_value = as_typed  # type: ignore[method-assign, assignment]


ZSH_FIRST_CALL = """
# A file that zsh loads on the first press of the tab key must answer that one too.
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  %(complete_func)s "$@"
fi
"""


def complete_zsh_script() -> None:
    """Let zsh answer the first press of the tab key in a session as well, which Typer's script only defines its function for."""
    # Typer has no public place for it; where a version keeps its scripts elsewhere, they stay as they are.
    with contextlib.suppress(ImportError, AttributeError, KeyError):
        from typer import _completion_shared

        scripts = _completion_shared._completion_scripts
        if "loadautofunc" not in scripts["zsh"]:
            scripts["zsh"] += ZSH_FIRST_CALL
