"""What a config implies, which have moved to ``fldet.config.prepare``."""

from fldet.moved import moved

__getattr__ = moved(__name__, "fldet.config.prepare")
