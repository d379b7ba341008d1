"""The formulas of the losses, which have moved to ``fldet.losses.formulas``."""

from fldet.moved import moved

__getattr__ = moved(__name__, "fldet.losses.formulas")
