"""A scan as a whole, one file per step: discover, process, merge, draw, finish."""
