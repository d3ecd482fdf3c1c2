"""``python -m maskbatch_export.detector`` of the first edition."""

import sys

sys.exit("error: `python -m maskbatch_export.detector` is now `python -m maskbatch_export detector`")
