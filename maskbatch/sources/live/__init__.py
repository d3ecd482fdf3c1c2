"""Cameras and other streams that have no end, and folders that are still being filled."""
