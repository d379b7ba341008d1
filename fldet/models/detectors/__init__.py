"""Detectors that do more with an image than MMDetection's."""
