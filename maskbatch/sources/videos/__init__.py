"""Videos: containers, packets, sampling, and frames at exact times."""
