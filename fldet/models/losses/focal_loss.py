"""The focal loss as a module that a config can name."""

import torch
from torch import Tensor, nn

from fldet.functional import sigmoid_focal_loss
from fldet.registry import MODELS


@MODELS.register_module()
class FocalLoss(nn.Module):
    """Alpha-balanced focal loss over K independent sigmoids (Eq. 5, Sec. 4.1).

    Args:
        use_sigmoid: must be True. The head reads it from the config of the loss to choose between
            K sigmoid outputs and K + 1 softmax outputs; the focal loss is only defined here for K.
        gamma: focusing strength, >= 0.
        alpha: weight of positives, in [0, 1]; None for no balancing.
        loss_weight: factor on the result.

    Raises:
        ValueError: ``use_sigmoid`` is not True; gamma or alpha out of range at the first call.
    """

    def __init__(
        self,
        *,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if use_sigmoid is not True:
            raise ValueError(f"FocalLoss needs use_sigmoid=True, got {use_sigmoid!r}")
        self.use_sigmoid = use_sigmoid
        self.gamma = gamma
        self.alpha = alpha
        self.loss_weight = loss_weight

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor = 1.0,
    ) -> Tensor:
        """Returns the weighted sum of the loss over all anchors and classes, over ``avg_factor``.

        Args:
            logits: (N, K) raw scores.
            labels: (N,) integers, 0..K-1 for objects, K for background.
            weight: (N,) weight of each anchor, 0 to ignore it; None means 1.
            avg_factor: what to divide the sum by: the number of anchors assigned to a box.

        Returns:
            Scalar, float32 or float64; 0 for no anchors, still connected to ``logits``.

        Raises:
            ValueError: shapes do not fit, or a label is outside 0..K.
        """
        loss = sigmoid_focal_loss(
            logits, one_hot_targets(labels, logits), alpha=self.alpha, gamma=self.gamma
        ).sum(dim=1)
        if weight is not None:
            loss = loss * weight
        return self.loss_weight * loss.sum() / avg_factor

    def extra_repr(self) -> str:
        """Returns the settings, for printing a model."""
        return f"gamma={self.gamma}, alpha={self.alpha}, loss_weight={self.loss_weight}"


def one_hot_targets(labels: Tensor, logits: Tensor) -> Tensor:
    """Returns (N, K) booleans, True at the class of each object; rows of background are False.

    Args:
        labels: (N,) integers in 0..K, K is background.
        logits: (N, K), for the shape and the device.

    Raises:
        ValueError: shapes do not fit, or a label is outside 0..K.
    """
    num_anchors, num_classes = logits.shape
    if labels.shape != (num_anchors,):
        raise ValueError(f"expected labels of shape ({num_anchors},), got {tuple(labels.shape)}")
    targets = logits.new_zeros((num_anchors, num_classes + 1), dtype=torch.bool)
    if num_anchors and not 0 <= int(labels.min()) <= int(labels.max()) <= num_classes:
        raise ValueError(
            f"labels must be in 0..{num_classes} ({num_classes} is background), "
            f"got {int(labels.min())}..{int(labels.max())}"
        )
    targets.scatter_(1, labels[:, None], True)
    return targets[:, :num_classes]
