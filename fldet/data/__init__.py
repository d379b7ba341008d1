"""Data sets: annotation files and drawn shapes in, samples out."""

from fldet.data.coco import CocoDataset
from fldet.data.images import LoadImage
from fldet.data.shapes_dataset import ShapesDataset
from fldet.data.transforms import PackDetInputs, RandomFlip

__all__ = ["CocoDataset", "LoadImage", "PackDetInputs", "RandomFlip", "ShapesDataset"]
