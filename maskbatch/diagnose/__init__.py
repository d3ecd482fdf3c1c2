"""Is everything in order, and how fast is it: doctor, warm-up, demo, bench."""
