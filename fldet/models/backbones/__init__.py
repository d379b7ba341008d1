"""Backbones that MMDetection does not have."""

from fldet.models.backbones.darknet19 import DarkNet19
from fldet.models.backbones.efficientnet_lite import EfficientNetLite
from fldet.models.backbones.inception_resnet_v2 import InceptionResNetV2
from fldet.models.backbones.ssd_resnet import SSDResNet

__all__ = ["DarkNet19", "EfficientNetLite", "InceptionResNetV2", "SSDResNet"]
