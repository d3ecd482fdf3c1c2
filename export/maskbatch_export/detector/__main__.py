"""``python -m maskbatch_export.detector``."""

from maskbatch_export.detector.cli import app

app()
