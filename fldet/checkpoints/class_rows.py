"""Rows of a detector's last layers that belong to a class: carried to other classes by name."""

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fldet.checkpoints.literals import MOST_CLASSES


@dataclass(frozen=True)
class ClassLayer:
    """A layer whose outputs are the same block for each anchor, and in it some for each class."""

    name: str  # of its weight and bias in the state, without these words
    before: int = 0  # outputs of a block before those of classes
    per_class: int = 1
    background: int = 0  # outputs behind those of classes

    def outputs(self, classes: int) -> int:
        """Returns the outputs of a block."""
        return self.before + self.per_class * classes + self.background


def carry_rows(
    model: nn.Module,
    weights: MutableMapping[str, Tensor],
    before: Sequence[str],
    now: Sequence[str],
) -> tuple[str, ...]:
    """Gives weights of other classes the shape of a model's; returns names of the classes kept.

    Rows of classes that both know, by name, are those of ``weights``; those of other classes are
    the model's own first ones, wherever they stand. What belongs to no class is kept. Layers of
    another shape for other reasons, as another number of anchors, stay as they are.

    Args:
        model: with its first weights.
        weights: by the names of the model's state; changed in place.
        before: classes that they are of, by label.
        now: those of the model.

    Returns:
        Empty, and nothing is changed, if no class is known to both, or no layer fits.
    """
    shared = tuple(name for name in now if name in set(before))
    own, carried = model.state_dict(), False
    if not shared or len(before) > MOST_CLASSES:
        return ()
    for layer in class_layers(model):
        for key in (f"{layer.name}.weight", f"{layer.name}.bias"):
            if key in weights and key in own:
                rows = _carried(weights[key], own[key], layer, before, now)
                if rows is not None:
                    weights[key], carried = rows, True
    return shared if carried else ()


def class_layers(model: nn.Module) -> Iterator[ClassLayer]:
    """Yields the layers with rows for classes, of RetinaNet, SSD, YOLOv2 and Fast R-CNN."""
    for name, head in model.named_modules():
        if not isinstance(getattr(head, "num_classes", None), int):
            continue
        parts: Any = head
        if hasattr(head, "retina_cls"):
            background = parts.cls_out_channels - parts.num_classes
            yield ClassLayer(f"{name}.retina_cls", background=background)
        elif hasattr(head, "fc_cls"):
            yield ClassLayer(f"{name}.fc_cls", background=1)
            if not parts.reg_class_agnostic:
                yield ClassLayer(f"{name}.fc_reg", per_class=4)
        elif type(head).__name__ == "YOLOv2Head":
            yield ClassLayer(f"{name}.conv", before=5)  # x, y, width, height, objectness
        elif type(head).__name__ == "SSDHead":
            for level, tower in enumerate(parts.cls_convs):
                yield ClassLayer(f"{name}.cls_convs.{level}.{len(tower) - 1}", background=1)


def _carried(
    old: Tensor, own: Tensor, layer: ClassLayer, before: Sequence[str], now: Sequence[str]
) -> Tensor | None:
    """Returns a weight with the rows of its classes by name; None if the layer is another one."""
    then, here = layer.outputs(len(before)), layer.outputs(len(now))
    anchors = len(own) // here if own.ndim else 0
    if old.shape != (anchors * then, *own.shape[1:]) or len(own) != anchors * here:
        return None
    source = old.to(own).reshape(anchors, then, -1)
    rows = own.clone().reshape(anchors, here, -1)
    rows[:, : layer.before] = source[:, : layer.before]
    if layer.background:
        rows[:, -layer.background :] = source[:, -layer.background :]
    labels = {name: label for label, name in reversed(list(enumerate(before)))}
    size = layer.per_class
    for label, name in enumerate(now):
        if name in labels:
            to, start = layer.before + size * label, layer.before + size * labels[name]
            rows[:, to : to + size] = source[:, start : start + size]
    return rows.reshape(own.shape)
