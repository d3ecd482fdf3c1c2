"""How good detectors and the classifier are on annotated pictures, and whether one is really better than another."""
