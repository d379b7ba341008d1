"""What ``fldet analyze`` does, as functions; ``import fldet`` loads this module at its first use.

All write their pictures into ``out_dir``, by default ``work_dirs/analysis``, and return an
``Analysis``: the figures as ``result``, and the ``files`` written.
"""

from fldet.analysis.anchors import analyze_anchors as anchors
from fldet.analysis.anchors import redraw_anchors
from fldet.analysis.dataset.analyze import analyze_dataset as dataset
from fldet.analysis.errors.analyze import analyze_errors as errors
from fldet.analysis.errors.analyze import redraw_errors
from fldet.analysis.flops.analyze import analyze_flops as flops
from fldet.analysis.labels.analyze import analyze_labels as labels
from fldet.analysis.log.analyze import analyze_log as log
from fldet.analysis.loss_cdf.analyze import analyze_loss_cdf as loss_cdf
from fldet.analysis.loss_cdf.analyze import redraw_loss_cdf
from fldet.analysis.loss_cdf.logits import SampleOptions
from fldet.analysis.loss_curves import analyze_loss_curves as loss_curves
from fldet.analysis.speed_accuracy import analyze_speed_accuracy as speed_accuracy
from fldet.analysis.thresholds.analyze import analyze_thresholds as thresholds

__all__ = [
    "SampleOptions",
    "anchors",
    "dataset",
    "errors",
    "flops",
    "labels",
    "log",
    "loss_cdf",
    "loss_curves",
    "redraw_anchors",
    "redraw_errors",
    "redraw_loss_cdf",
    "speed_accuracy",
    "thresholds",
]
