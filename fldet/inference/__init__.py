"""Finding objects: detectors, folders of images, exported models."""

from fldet import _compat

_compat.install()
