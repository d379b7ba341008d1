"""Trainings, tests and timings done one after the other or side by side, here or on a cluster."""
