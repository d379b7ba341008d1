"""Detections in, figures out."""

from fldet.evaluation.coco import evaluate_coco
from fldet.evaluation.detections import load_detections, save_detections
from fldet.evaluation.metric_voc import VOCMetric
from fldet.evaluation.metrics import CocoMetric
from fldet.evaluation.voc import evaluate_voc

__all__ = [
    "CocoMetric",
    "VOCMetric",
    "evaluate_coco",
    "evaluate_voc",
    "load_detections",
    "save_detections",
]
