"""Backbones that MMDetection does not have."""

from fldet.models.backbones.ssd_resnet import SSDResNet as SSDResNet
