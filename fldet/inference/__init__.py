"""Finding objects: detectors, folders of images, exported models."""
