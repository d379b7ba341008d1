"""What brings the maps of a backbone together."""

from fldet.models.necks.passthrough import PassthroughNeck

__all__ = ["PassthroughNeck"]
