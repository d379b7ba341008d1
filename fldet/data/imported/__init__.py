"""Annotations of other tools, read where they lie into what a COCO file holds.

One file for each format gives ``LabelledImage`` after ``LabelledImage``; ``dataset.py`` finds their
files among the images and does the rest for all of them.
"""
