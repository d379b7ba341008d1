"""The ResNet of SSD and DSSD, as their authors' Caffe computes it."""

from mmdet.models.backbones import ResNet
from torch import nn

from fldet.registry import MODELS


@MODELS.register_module()
class SSDResNet(ResNet):
    """MMDetection's ResNet whose first pooling has no border and rounds its size up, as Caffe's.

    So an image of 513 pixels has maps of 64 cells at stride 8 and 32 at stride 16; with
    MMDetection's pooling it has 65 and 33. Arguments and names of weights are those of
    MMDetection's ``ResNet``; SSD513 takes the maps of ``out_indices=(1, 3)`` with
    ``strides=(1, 2, 2, 1)`` and ``dilations=(1, 1, 1, 2)`` (Fu et al. 2017, Sec. 3.1, and the
    authors' model_libs.py).
    """

    def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
        super()._make_stem_layer(in_channels, stem_channels)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
