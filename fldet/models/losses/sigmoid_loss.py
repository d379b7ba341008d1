"""The modules of the losses, which have moved to ``fldet.losses.modules``."""

from fldet.moved import moved

__getattr__ = moved(__name__, "fldet.losses.modules")
