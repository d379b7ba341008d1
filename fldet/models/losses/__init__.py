"""The losses of heads; the functions and plain modules are in ``fldet.losses``."""
