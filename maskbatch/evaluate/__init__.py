"""How good detectors and the classifier are on annotated images, and whether one is really better than another."""
