"""Checkpoints: files, the configs in them, pretrained weights, the models they make."""
