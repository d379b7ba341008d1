"""What the losses of the paper share: K independent sigmoids, a sum over anchors, a divisor."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fldet.functional import Alpha, balance, check_alpha, signed_logits


class SigmoidLoss(nn.Module):
    """A loss over K independent sigmoids for each anchor, balanced by alpha (Sec. 3, 4.1).

    Args:
        formula: the unbalanced loss of signed logits, elementwise; see ``fldet.functional``.
        use_sigmoid: must be True. The head reads it from the config of the loss to choose between
            K sigmoid outputs and K + 1 softmax outputs; the paper's losses are defined for K.
        alpha: weight of positives, in [0, 1]; one for each class; or None for no balancing.
        loss_weight: factor on the result.

    Raises:
        ValueError: ``use_sigmoid`` is not True, or alpha or what the formula holds is out of range.
    """

    def __init__(
        self,
        formula: Callable[[Tensor], Tensor],
        *,
        use_sigmoid: bool = True,
        alpha: Alpha = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if use_sigmoid is not True:
            raise ValueError(f"{type(self).__name__} needs use_sigmoid=True, got {use_sigmoid!r}")
        check_alpha(alpha)
        formula(torch.empty(0))  # raises if gamma or a threshold is out of range
        self.formula = formula
        self.use_sigmoid = use_sigmoid
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
            logits: (N, K) raw scores; or the map of a level, (N, A * K, H, W).
            labels: (N,) integers, 0..K-1 for objects, K for background; (N, H, W, A) for a map.
            weight: of the shape of ``labels``, 0 to ignore an anchor; None means 1.
            avg_factor: what to divide the sum by, usually the number of anchors assigned to a box.

        Returns:
            Scalar, float32 or float64; 0 for no anchors, still connected to ``logits``.

        Raises:
            ValueError: shapes do not fit, or a label is outside 0..K.
        """
        loss = self.per_anchor(logits, labels)
        if weight is not None:
            loss = loss * weight
        return self.loss_weight * loss.sum() / avg_factor

    def per_anchor(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of each anchor, summed over the classes, of the shape of ``labels``.

        Neither ``loss_weight`` nor a divisor is in it. Arguments and errors as in ``forward``.
        """
        if logits.dim() == 4:
            logits = _one_row_per_anchor(logits, labels)
        return balance(self.formula(signed_logits(logits, labels)), labels, self.alpha).sum(-1)

    def extra_repr(self) -> str:
        """Returns the settings, for printing a model."""
        return f"alpha={self.alpha}, loss_weight={self.loss_weight}"


def _one_row_per_anchor(cls_score: Tensor, labels: Tensor) -> Tensor:
    """Returns the (N, A * K, H, W) map of a level as (N, H, W, A, K)."""
    num_images, channels, height, width = cls_score.shape
    if labels.dim() != 4 or labels.shape[:3] != (num_images, height, width):
        raise ValueError(
            f"expected labels of shape ({num_images}, {height}, {width}, A) for a map of shape "
            f"{tuple(cls_score.shape)}, got {tuple(labels.shape)}"
        )
    num_anchors = labels.shape[3]
    if channels % num_anchors:
        raise ValueError(f"{channels} channels are no multiple of {num_anchors} anchors")
    return cls_score.permute(0, 2, 3, 1).reshape(*labels.shape, channels // num_anchors)
