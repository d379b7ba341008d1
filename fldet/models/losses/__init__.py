"""The losses, which have moved to ``fldet.losses``."""
