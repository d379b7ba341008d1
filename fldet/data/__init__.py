"""Data sets: annotation files and drawn shapes in, samples out."""

from fldet.data.coco import CocoDataset
from fldet.data.images import LoadImage
from fldet.data.shapes.dataset import ShapesDataset
from fldet.data.transforms import PackDetInputs, RandomFlip
from fldet.data.voc import VOCDataset
from fldet.data.yolo import YOLODataset

__all__ = [
    "CocoDataset",
    "LoadImage",
    "PackDetInputs",
    "RandomFlip",
    "ShapesDataset",
    "VOCDataset",
    "YOLODataset",
]
