"""Folds: the images of a data set divided into parts, each validated on once."""
