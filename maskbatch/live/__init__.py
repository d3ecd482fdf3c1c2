"""`maskbatch watch`: a scan without an end. Frames of all cameras share the models' batches; what comes out is the same table, growing.

readers (a thread per camera) ─▶ newest frames ─▶ detect ▶ classify (shared) ─▶ people ─▶ rows, tracks, events, page
"""
