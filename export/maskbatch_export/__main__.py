"""``python -m maskbatch_export COMMAND``: the training package without the rest of the command line."""

from __future__ import annotations

import sys

from maskbatch.errors import MaskbatchError
from maskbatch_export.cli import app


def main() -> None:
    """Run a command; a person's mistake is one sentence and an exit code, never a traceback."""
    try:
        app()
    except MaskbatchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
