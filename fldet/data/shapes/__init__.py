"""Shapes: a data set that is drawn, not downloaded."""
