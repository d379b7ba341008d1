"""The referee: one published list of checks for anybody's focal loss.

``python -m fldet.losses.conformance torchvision.ops:sigmoid_focal_loss`` prints what the loss
passes, what it fails and by how much, and what does not apply to it; ``--list`` prints the checks.
All losses are judged by the same code against the formula in float64, fldet's own too.
"""

from fldet.losses.conformance import arguments, measures, numbers, transforms
from fldet.losses.conformance.contract import Check, Judged, Result, results_of
from fldet.losses.conformance.peers import judged_of

CHECKS: tuple[Check, ...] = (
    *numbers.CHECKS,
    *arguments.CHECKS,
    *transforms.CHECKS,
    *measures.CHECKS,
)

__all__ = ["CHECKS", "Check", "Judged", "Result", "judged_of", "results_of"]
