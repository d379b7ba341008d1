"""Image files, which have moved to ``fldet.data.image_files``."""

from fldet.moved import moved

__getattr__ = moved(__name__, "fldet.data.image_files")
