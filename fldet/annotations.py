"""COCO annotations, which have moved to ``fldet.data.annotations``."""

from fldet.moved import moved

__getattr__ = moved(__name__, "fldet.data.annotations")
