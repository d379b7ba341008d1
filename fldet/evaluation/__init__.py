"""Detections in, figures out."""

from fldet.evaluation.coco import evaluate_coco
from fldet.evaluation.detections import load_detections, save_detections
from fldet.evaluation.metric import CocoMetric

__all__ = ["CocoMetric", "evaluate_coco", "load_detections", "save_detections"]
