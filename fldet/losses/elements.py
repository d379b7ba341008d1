"""The arguments of a loss, checked once and laid out as (outer, K, inner) blocks.

Values are looked at in eager mode alone. Under ``torch.compile``, ``torch.export``,
``torch.jit.trace`` and the transforms of ``torch.func`` they are not known: there types and shapes
are checked, and no more.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

Alpha = float | Sequence[float] | None
Gamma = float | Sequence[float] | Tensor | Callable[[Tensor], Tensor]
Exponent = float | Tensor | Callable[[Tensor], Tensor]  # gamma; (K, 1) for one of each class
Piece = tuple[slice, slice]

REDUCTIONS = ("none", "mean", "sum", "positives")
_CUDA_PIECE = 1 << 22


def is_traced(tensor: Tensor) -> bool:
    """Returns whether values are unknown here: a trace, a transform, or a tensor without data."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        or torch._C._are_functorch_transforms_active()
        or tensor.is_meta
        or type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__  # a fake tensor
    )


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """Returns the type that a loss is computed in: float64 for float64, float32 for the rest."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def sum_dtype(device: torch.device) -> torch.dtype:
    """Returns the type of long sums: float64, but float32 on Apple's GPUs, which have no other."""
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(frozen=True)
class Layout:
    """How a tensor of logits is seen as (outer, K, inner), without a copy where it can be.

    Attributes:
        shape: of the logits.
        dim: which dimension holds the K classes, >= 0; None if none does: K is 1.
        last: whether the classes lie side by side in memory, behind the other dimensions.
        is_guess: whether the classes could as well be in dimension 1.
    """

    shape: torch.Size
    dim: int | None
    last: bool
    is_guess: bool = False

    @property
    def num_classes(self) -> int:
        """K."""
        return 1 if self.dim is None else self.shape[self.dim]

    @property
    def example_shape(self) -> torch.Size:
        """The shape of what there is one of for each example: that of the labels."""
        if self.dim is None:
            return self.shape
        return torch.Size((*self.shape[: self.dim], *self.shape[self.dim + 1 :]))

    @property
    def inner(self) -> int:
        """The number of entries behind the classes in memory."""
        if self.dim is None or self.last:
            return 1
        return math.prod(self.shape[self.dim + 1 :])

    @property
    def outer(self) -> int:
        """The number of examples over ``inner``."""
        return math.prod(self.example_shape) // max(1, self.inner)

    def blocks(self, tensor: Tensor) -> Tensor:
        """Returns a tensor of the shape of the logits as (outer, K, inner)."""
        if self.last and self.dim is not None:
            tensor = tensor.movedim(self.dim, -1)
        return tensor.reshape(self.outer, self.num_classes, self.inner)

    def of_examples(self, tensor: Tensor) -> Tensor:
        """Returns a tensor with a value for each example as (outer, 1, inner)."""
        return tensor.reshape(self.outer, 1, self.inner)

    def restored(self, blocks: Tensor) -> Tensor:
        """Returns (outer, K, inner) in the shape of the logits."""
        if self.last and self.dim is not None:
            return blocks.reshape(*self.example_shape, -1).movedim(-1, self.dim)
        return blocks.reshape(self.shape)

    def pieces(self, device: torch.device, size: int) -> Iterator[Piece]:
        """Yields slices of outer and inner that hold all classes of some examples.

        Args:
            device: where the logits are; on a CPU each thread has a piece of its own.
            size: how many entries a thread of a CPU takes at a time.
        """
        if device.type == "cpu":  # where there is little to do, pieces stay small beside the logits
            entries = self.outer * self.num_classes * self.inner
            size = min(size * torch.get_num_threads(), max(size // 4, entries // 8))
        else:
            size = _CUDA_PIECE
        rows = max(1, size // max(1, self.num_classes * self.inner))
        columns = max(1, size // self.num_classes) if rows == 1 else max(1, self.inner)
        for row in range(0, self.outer, rows):
            for column in range(0, self.inner, columns):
                yield slice(row, row + rows), slice(column, column + columns)


def layout_of(inputs: Tensor, dim: int | None, is_guess: bool = False) -> Layout:
    """Returns the layout of logits with the classes in one dimension, or in none."""
    last = False
    if dim is not None and not is_traced(inputs) and not inputs.is_contiguous():
        last = inputs.movedim(dim, -1).is_contiguous()
    return Layout(inputs.shape, dim, last, is_guess)


def class_dim_of(inputs: Tensor, targets: Tensor, class_dim: int | None) -> int:
    """Returns which dimension of the logits holds the classes.

    By default the last, or dimension 1 where the labels fit that alone.

    Raises:
        ValueError: the labels fit neither, or both.
    """
    if class_dim is not None:
        if not -inputs.dim() <= class_dim < inputs.dim():
            raise ValueError(f"class_dim {class_dim} is no dimension of {tuple(inputs.shape)}")
        return class_dim % inputs.dim()
    last = inputs.dim() - 1
    if targets.shape == inputs.shape or inputs.dim() < 3:
        return last
    fits = [dim for dim in (last, 1) if targets.shape == _without(inputs.shape, dim)]
    if len(fits) > 1:
        raise ValueError(
            f"labels of shape {tuple(targets.shape)} fit logits of shape {tuple(inputs.shape)} "
            "with the classes in dimension 1 and in the last: say which by class_dim"
        )
    return fits[0] if fits else last


def _without(shape: torch.Size, dim: int) -> torch.Size:
    return torch.Size((*shape[:dim], *shape[dim + 1 :]))


# --- checks; each raises ValueError ---


def check_reduction(reduction: str) -> None:
    """Refuses what is no reduction."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")


def check_logits(inputs: Tensor) -> None:
    """Refuses logits of a type that has no fractions."""
    if not inputs.is_floating_point():
        raise ValueError(f"expected logits of a floating-point type, got {inputs.dtype}")


def check_targets(inputs: Tensor, targets: Tensor, layout: Layout) -> None:
    """Refuses targets that are neither one for each logit nor a label for each example."""
    if targets.shape == inputs.shape:
        return
    if layout.dim is None or targets.shape != layout.example_shape:
        labels = "" if layout.dim is None else f"labels of shape {tuple(layout.example_shape)} or "
        raise ValueError(
            f"expected {labels}targets of the shape of the logits, {tuple(inputs.shape)}, got "
            f"{tuple(targets.shape)}"
        )
    check_integers(targets)


def held_by(dtype: torch.dtype, ignore_index: int | None) -> int | None:
    """Returns the index if a type can hold it; compared with another it would be wrapped."""
    if ignore_index is None or dtype == torch.bool:
        return None
    if dtype.is_floating_point:
        return ignore_index
    limits = torch.iinfo(dtype)
    return ignore_index if limits.min <= ignore_index <= limits.max else None


def check_integers(labels: Tensor) -> None:
    """Refuses labels of a type that is no integer's."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers, got {labels.dtype}")


def check_label_range(labels: Tensor, highest: int, ignore_index: int | None, says: str) -> bool:
    """Refuses labels outside 0..highest that are not ``ignore_index``.

    Returns:
        Whether there may be an ``ignore_index`` among them.
    """
    low, high = _extremes(labels)
    inside = ignore_index is not None and 0 <= ignore_index <= highest
    if 0 <= low <= high <= highest:
        return inside
    low, high = _extremes(labels if ignore_index is None else labels[labels != ignore_index])
    if not 0 <= low <= high <= highest:
        raise ValueError(f"labels must be in 0..{highest}{says}, got {low:.0f}..{high:.0f}")
    return True


def check_shares(targets: Tensor, ignore_index: int | None) -> bool:
    """Refuses targets outside [0, 1] that are not ``ignore_index``, and what is not finite.

    Returns:
        Whether there may be an ``ignore_index`` among them.
    """
    low, high = _extremes(targets)
    if 0 <= low <= high <= 1:
        return ignore_index in (0, 1) and targets.dtype != torch.bool
    low, high = _extremes(targets if ignore_index is None else targets[targets != ignore_index])
    if not 0 <= low <= high <= 1:
        raise ValueError(
            f"targets of the shape of the logits must be in [0, 1], got {low:g}..{high:g}"
        )
    return True


def _extremes(values: Tensor) -> tuple[float, float]:
    """Returns the least and the largest, 0 and 0 of nothing; waits for the device once."""
    if not values.numel() or values.dtype == torch.bool:
        return 0.0, 0.0
    if values.dtype in (torch.uint16, torch.uint32, torch.uint64):  # torch has no extremes of them
        values = values.long()
    low, high = torch.stack(values.aminmax()).tolist()
    return low, high


def check_alpha(alpha: Alpha | Tensor, num_classes: int | None = None) -> None:
    """Refuses an alpha that is not None, a number in [0, 1] or one for each class."""
    if alpha is None:
        return
    if not all(0 <= value <= 1 for value in _numbers(alpha)):
        raise ValueError(f"alpha must be None or in [0, 1], got {alpha}")
    if num_classes and not isinstance(alpha, (int, float, Real)) and len(alpha) != num_classes:
        raise ValueError(f"alpha has {len(alpha)} values for {num_classes} classes")


def check_class_weight(value: Sequence[float] | None, num_classes: int | None = None) -> None:
    """Refuses weights of classes that are not None, or finite and >= 0, one for each class."""
    if value is None:
        return
    if not isinstance(value, Sequence) or not all(0 <= one < math.inf for one in _numbers(value)):
        raise ValueError(f"class_weight must be None or finite numbers >= 0, got {value}")
    if num_classes and len(value) != num_classes:
        raise ValueError(f"class_weight has {len(value)} values for {num_classes} classes")


def check_gamma(gamma: Gamma, name: str = "gamma") -> None:
    """Refuses an exponent that is no function, and negative or not finite."""
    if not all(0 <= value < math.inf for value in _numbers(gamma)):
        raise ValueError(f"{name} must be finite and >= 0, got {gamma}")


def _numbers(setting: Alpha | Gamma | Tensor) -> list[float]:
    """Returns the numbers of a setting, as far as they are known."""
    if setting is None or callable(setting):
        return []
    if isinstance(setting, Tensor):
        return [] if is_traced(setting) else setting.detach().flatten().tolist()
    return [float(setting)] if isinstance(setting, (int, float, Real)) else list(setting)


def of_classes(value: Sequence[float] | Tensor, layout: Layout, name: str, like: Tensor) -> Tensor:
    """Returns one value for each class as (K, 1), of the device of the logits.

    Raises:
        ValueError: there are not as many as classes.
    """
    values = torch.as_tensor(value, dtype=compute_dtype(like), device=like.device)
    if layout.is_guess and values.shape == (layout.num_classes,):
        raise ValueError(
            f"{name} for each of {layout.num_classes} classes: they may be in dimension 1 of "
            f"{tuple(layout.shape)} or in the last: say which by class_dim"
        )
    if layout.dim is None or values.shape != (layout.num_classes,):
        raise ValueError(
            f"expected {name} for each of {layout.num_classes} classes, in dimension {layout.dim} "
            f"of {tuple(layout.shape)} (see class_dim), got {tuple(values.shape)}"
        )
    return values.view(-1, 1)


def exponent_of(gamma: Gamma, layout: Layout, like: Tensor) -> Exponent:
    """Returns gamma with what there is for each class as (K, 1)."""
    if callable(gamma):
        return gamma
    if isinstance(gamma, (int, float, Real)):
        return float(gamma)
    if isinstance(gamma, Tensor) and not gamma.dim():
        return gamma.to(like.device, compute_dtype(like))
    return of_classes(gamma, layout, "a gamma", like)


def gamma_at(gamma: Exponent, p_t: Tensor) -> float | Tensor:
    """Returns the gamma of some probabilities.

    Raises:
        ValueError: a function returns neither a number nor one for each of them.
    """
    if isinstance(gamma, Tensor) or not callable(gamma):
        return gamma
    found = gamma(p_t.detach())
    if isinstance(found, Tensor) and found.dim() and found.shape != p_t.shape:
        raise ValueError(
            f"expected a gamma for each of {tuple(p_t.shape)} probabilities, a function of one of "
            f"them, got {tuple(found.shape)}"
        )
    return found


def wanted_by(gamma: Exponent, like: Tensor) -> object:
    """Returns a tensor that wants a gradient where something in a function for gamma does."""
    if isinstance(gamma, Tensor) or not callable(gamma):
        return gamma
    with torch.enable_grad():
        return gamma(torch.full((1, 1, 1), 0.5, dtype=compute_dtype(like), device=like.device))


def factor_of(alpha: Alpha | Tensor, layout: Layout, like: Tensor) -> float | Tensor | None:
    """Returns alpha with what there is for each class as (K, 1); None for -1, as torchvision.

    Raises:
        ValueError: it is out of range, or there are not as many as classes.
    """
    if isinstance(alpha, (int, float, Real)) and alpha == -1:
        return None
    check_alpha(alpha)
    if alpha is None:
        return None
    if isinstance(alpha, (int, float, Real)):
        return float(alpha)
    if isinstance(alpha, Tensor) and not alpha.dim():
        return alpha.to(like.device, compute_dtype(like))
    return of_classes(alpha, layout, "an alpha", like)
