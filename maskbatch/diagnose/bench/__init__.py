"""How fast a scan is, measured against what the machine could do at best: the ceiling (see docs/throughput.md).

`kernels` times decoding, detecting, cropping, classifying and writing alone on one core; `runs` times whole scans from outside, with
their memory; `compare` takes both in turn and puts the one over the other.
"""
