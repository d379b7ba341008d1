"""Detections in, figures out."""

from .coco import CocoMetric, evaluate_coco, load_detections, save_detections

__all__ = ["CocoMetric", "evaluate_coco", "load_detections", "save_detections"]
