"""How losses are found and called.

``MODULE:NAME`` is called as torchvision's function, or is a class made with the same settings;
``MODULE:NAME@softmax`` as torch's cross entropy with a gamma. Others have an entry in ``PEERS``.
"""

import importlib
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fldet.losses.conformance.contract import Bound, Judged

# Returns a loss with alpha, gamma, reduction and options as a function of logits and targets.
Adapter = Callable[..., Bound]
FORMS = ("sigmoid", "softmax")
_kept: list[object] = []  # definitions that vanish with their library


def as_torchvision(
    loss: Any, *, alpha: float | None, gamma: float, reduction: str, **options: Any
) -> Bound:
    """Calls ``loss(inputs, targets, alpha=, gamma=, reduction=)``; alpha -1 is none.

    A class is made with these and called with inputs and targets.
    """
    settings = {"alpha": -1 if alpha is None else alpha, "gamma": gamma, "reduction": reduction}
    if isinstance(loss, type):
        return loss(**settings, **options)
    return partial(loss, **settings, **options)


def as_cross_entropy(
    loss: Any,
    *,
    gamma: float,
    reduction: str,
    alpha: float | None = None,
    class_weight: Tensor | None = None,
    **options: Any,
) -> Bound:
    """Calls ``loss(input, target, gamma=, reduction=)``, or makes a class with these."""
    del alpha  # a softmax is not asked for one
    settings = {"gamma": gamma, "reduction": reduction, **options, **_as_weight(class_weight)}
    return loss(**settings) if isinstance(loss, type) else partial(loss, **settings)


def _as_weight(class_weight: Tensor | None) -> dict[str, Any]:
    return {} if class_weight is None else {"weight": class_weight}


def fldets_sigmoid(loss: Any, **settings: Any) -> Bound:
    """Calls fldet's function."""
    return partial(loss, **settings)


def kornia(loss: Any, *, class_weight: Tensor | None = None, **settings: Any) -> Bound:
    """Calls one of kornia's functions."""
    return partial(loss, **settings, **_as_weight(class_weight))


def monai_sigmoid(loss: Any, *, class_weight: Tensor | None = None, **settings: Any) -> Bound:
    """Makes MONAI's class."""
    return loss(**settings, **_as_weight(class_weight))


def monai_softmax(loss: Any, **settings: Any) -> Bound:
    """Makes MONAI's class for labels, which want a dimension for the classes, or probabilities."""
    of_labels = monai_sigmoid(loss, use_softmax=True, to_onehot_y=True, **settings)
    of_shares = monai_sigmoid(loss, use_softmax=True, **settings)

    def bound(x: Tensor, t: Tensor) -> Tensor:
        return of_shares(x, t) if t.is_floating_point() else of_labels(x, t.unsqueeze(1))

    return bound


def smp_binary(loss: Any, **settings: Any) -> Bound:
    """Makes the class of segmentation_models_pytorch in its mode for independent logits."""
    return loss("binary", **settings)


def imbalanced_sigmoid(
    loss: Any, *, alpha: float | None, weight: Tensor | None = None, **settings: Any
) -> Bound:
    """Makes the class of imbalanced-losses."""
    module = loss(alpha=-1 if alpha is None else alpha, **settings)
    return module if weight is None else partial(module, sample_weight=weight)


def imbalanced_softmax(
    loss: Any,
    *,
    alpha: float | None,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    **settings: Any,
) -> Bound:
    """Makes the class of imbalanced-losses, whose alpha is a weight of each class."""
    del alpha
    module = loss(alpha=class_weight, **settings)
    return module if weight is None else partial(module, sample_weight=weight)


def mmdet_plain(loss: Any, *, alpha: float | None, **settings: Any) -> Bound:
    """Calls MMDetection's plain function, which has no way to do without alpha but 0.5 twice."""
    if alpha is not None:
        return partial(loss, alpha=alpha, **settings)

    def bound(x: Tensor, t: Tensor) -> Tensor:
        return 2 * loss(x, t, alpha=0.5, **settings)

    return bound


OF_CLASSES = frozenset({"ignore_index", "class_weight"})
ALL = OF_CLASSES | {"weight"}

# Form, adapter, and what a loss takes beside: a weight is one for each logit of a sigmoid, or
# example of a softmax, a class weight one for each class.
PEERS: dict[str, tuple[str, Adapter, frozenset[str]]] = {
    "fldet.losses:sigmoid_focal_loss": ("sigmoid", fldets_sigmoid, ALL),
    "fldet.losses:softmax_focal_loss": ("softmax", as_cross_entropy, OF_CLASSES),
    "kornia.losses:binary_focal_loss_with_logits": ("sigmoid", kornia, OF_CLASSES),
    "kornia.losses:focal_loss": ("softmax", kornia, OF_CLASSES),
    "monai.losses:FocalLoss": ("sigmoid", monai_sigmoid, OF_CLASSES),
    "monai.losses:FocalLoss@softmax": ("softmax", monai_softmax, OF_CLASSES),
    "segmentation_models_pytorch.losses:FocalLoss": (
        "sigmoid",
        smp_binary,
        frozenset({"ignore_index"}),
    ),
    "imbalanced_losses:SigmoidFocalLoss": ("sigmoid", imbalanced_sigmoid, frozenset({"weight"})),
    "imbalanced_losses:SoftmaxFocalLoss": ("softmax", imbalanced_softmax, ALL),
    "mmdet.models.losses.focal_loss:py_sigmoid_focal_loss": (
        "sigmoid",
        mmdet_plain,
        frozenset({"weight"}),
    ),
}


def judged_of(name: str, call: str | None = None) -> Judged:
    """Returns the loss of a name, ready to be judged.

    Args:
        name: ``MODULE:NAME``, with ``@softmax`` behind it for a loss over classes.
        call: ``MODULE:NAME`` of an adapter: a function of the loss, ``alpha`` (or None),
            ``gamma`` and ``reduction`` that returns a function of logits and targets. If it takes
            ``ignore_index``, ``weight`` or ``class_weight`` too, its attribute ``options`` says so.

    Raises:
        ValueError: there is no such loss.
    """
    where, _, form = name.partition("@")
    if form not in ("", *FORMS):
        raise ValueError(f"{name}: expected @sigmoid or @softmax")
    loss = _object_of(where)
    adapter: Adapter = as_cross_entropy if form == "softmax" else as_torchvision
    options: frozenset[str] = frozenset()
    if call is not None:
        adapter = _object_of(call)
        options = frozenset(getattr(adapter, "options", ()))
    elif name in PEERS:
        form, adapter, options = PEERS[name]
    return Judged(name, _version(where), form or "sigmoid", partial(adapter, loss), options)


def _object_of(where: str) -> Any:
    module, _, name = where.partition(":")
    try:
        return getattr(imported(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def imported(name: str) -> types.ModuleType:
    """Imports a module, where that fails in spite of a loss that needs nothing but torch.

    torchvision asks for operators that its C library has registered, and this does not load beside
    a torch of another build; so they are registered by name only. A package that imports what is
    not installed is entered without running its own ``__init__``.
    """
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise ImportError(str(error)) from error
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(operator + arguments)  # type: ignore[no-untyped-call]
        _kept.append(library)
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        spec = importlib.util.find_spec(package) if package not in sys.modules else None
        if (error.name or "").partition(".")[0] == package or spec is None or package == name:
            raise
        for module in [one for one in sys.modules if one.startswith(f"{package}.")]:
            del sys.modules[module]
        bare = types.ModuleType(package)
        bare.__path__ = list(spec.submodule_search_locations or [])
        sys.modules[package] = bare
        return importlib.import_module(name)


def _version(where: str) -> str:
    """Returns the name and version of the package that a module is from."""
    package = where.partition(":")[0].partition(".")[0]
    names = importlib.metadata.packages_distributions().get(package, [package])
    try:
        return f"{names[0]} {importlib.metadata.version(names[0])}"
    except importlib.metadata.PackageNotFoundError:
        version = getattr(sys.modules.get(package), "__version__", None)
        return package if version is None else f"{package} {version}"
