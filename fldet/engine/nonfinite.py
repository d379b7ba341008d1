"""A batch whose loss is not finite: where it went wrong, and a file to look at it again."""

import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from fldet.data.stream import ITERATION, seed_everything
from fldet.files import write_atomically

INSTANCES = ("gt_instances", "ignored_instances")


@dataclass(frozen=True)
class Moment:
    """Where a run was when it met a batch."""

    iteration: int  # from 1
    seed: int
    rank: int
    lr: float
    autocast: str  # name of the data type of mixed precision, '' without


@dataclass(frozen=True)
class Finding:
    """What a second pass over a batch has shown."""

    parts: dict[str, float]  # the loss and its parts by name
    first: str  # the first tensor that is not finite; '' if all are finite

    @property
    def finite(self) -> bool:
        """Whether the loss and its parts are finite."""
        return all(map(math.isfinite, self.parts.values()))


@torch.no_grad()
def examine(model: Any, batch: dict[str, Any], moment: Moment) -> Finding:
    """Returns the loss of a batch once more, and the first tensor in it that is not finite.

    The model is not wrapped, in training mode, with the weights and buffers of the moment, which
    decides on random numbers and precision; the batch is as the loader gave it.
    """
    device = next(model.parameters()).device.type
    seed_everything(ITERATION, moment.seed, moment.rank, moment.iteration - 1)
    dtype = getattr(torch, moment.autocast) if moment.autocast else None
    with torch.autocast(device, dtype=dtype) if dtype else nullcontext():
        data = model.data_preprocessor(batch, True)
        first = next(filter(None, starmap(_describe, _before_the_network(model, data))), "")
        with _watched(model) as seen:
            losses = model(**data, mode="loss")
    _, parts = model.parse_losses(losses)
    values = {name: float(value) for name, value in parts.items()}
    wrong = [f"{name} itself" for name, x in values.items() if not math.isfinite(x)]
    return Finding(values, first or next(iter(seen + wrong[-1:]), ""))


def save_batch(path: Path, model: nn.Module, batch: dict[str, Any], moment: Moment) -> Path:
    """Writes what ``fldet train CONFIG --replay`` needs, in tensors and plain values only."""
    content = {
        "moment": vars(moment),
        "state_dict": {name: value.cpu() for name, value in model.state_dict().items()},
        "inputs": [image.cpu() for image in batch["inputs"]],
        "samples": [_plain_sample(sample) for sample in batch["data_samples"]],
    }
    buffer = io.BytesIO()  # a full disk would be no OSError from within torch
    torch.save(content, buffer)
    return write_atomically(path, buffer.getvalue())


def load_batch(content: Mapping[str, Any]) -> tuple[dict[str, Any], Moment]:
    """Returns the batch of a file of ``save_batch``, and the moment."""
    from mmdet.structures import DetDataSample

    samples = []
    for saved in content["samples"]:
        sample = DetDataSample(metainfo=saved["metainfo"])
        for key in INSTANCES:
            setattr(sample, key, InstanceData(**saved[key]))
        samples.append(sample)
    return {"inputs": content["inputs"], "data_samples": samples}, Moment(**content["moment"])


def image_names(batch: Mapping[str, Any]) -> str:
    """Returns ids and files of the images of a batch, one a line."""
    samples = batch["data_samples"]
    return "\n".join(f"  image {s.get('img_id')}: {s.get('img_path')}" for s in samples)


def _plain_sample(sample: Any) -> dict[str, Any]:
    plain = {"metainfo": {key: _plain(value) for key, value in sample.metainfo.items()}}
    for key in INSTANCES:
        instances = sample.get(key)
        plain[key] = {
            name: getattr(value, "tensor", value).cpu()
            for name, value in (instances.items() if instances is not None else ())
            if isinstance(getattr(value, "tensor", value), Tensor)
        }
    return plain


def _plain(value: Any) -> Any:
    """Returns a value in Python's own types: NumPy's numbers and arrays as numbers and lists."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    if hasattr(value, "tolist"):
        return value.tolist()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


# --- the search ----------------------------------------------------------------------------------


def _before_the_network(model: nn.Module, data: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in model.state_dict().items():
        yield f"weight {name}, before the iteration", value
    yield "input images", data["inputs"]
    for sample in data["data_samples"]:
        boxes = sample.gt_instances.bboxes
        yield f"boxes of image {sample.get('img_id')}", getattr(boxes, "tensor", boxes)


def _describe(name: str, value: Any) -> str:
    """Returns what is wrong with a tensor, '' if all of it is finite."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return ""
    wrong = int((~torch.isfinite(value)).sum())
    shape = "x".join(map(str, value.shape))
    return f"{name} ({wrong} of {value.numel()} values, shape {shape})" if wrong else ""


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """Gives a list that fills with the tensors that are not finite, in order of the layers."""
    found: list[str] = []
    calls: Counter[str] = Counter()

    def watch(name: str) -> Any:
        def look(_module: nn.Module, inputs: Any, output: Any) -> None:
            level = _level(model, name, calls[name])
            calls[name] += 1
            for kind, values in (("input", inputs), ("output", output)):
                for value in values if isinstance(values, (list, tuple)) else [values]:
                    if text := _describe(f"{kind} of {name}{level}", value):
                        found.append(text)

        return look

    layers = [(name, m) for name, m in model.named_modules() if not list(m.children())]
    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _level(model: nn.Module, name: str, call: int) -> str:
    """Returns the level of the pyramid that a layer works on, '' where there is none.

    The head's layers are called once for each level, the neck has layers of its own for each.
    """
    found = re.match(r"neck\.(?:lateral|fpn)_convs\.(\d+)", name)
    if not found and not name.startswith("bbox_head."):
        return ""
    index = int(found[1]) if found else call
    generator = getattr(getattr(model, "bbox_head", None), "prior_generator", None)
    strides = [stride[0] for stride in getattr(generator, "strides", ())]
    if index >= len(strides):
        return ""
    return f" on level P{math.log2(strides[index]):.0f} (stride {strides[index]})"


def finding_text(finding: Finding, moment: Moment, batch: dict[str, Any]) -> str:
    """Returns the report about a batch: iteration, losses, first tensor, images."""
    parts = ", ".join(f"{name} {value:.6g}" for name, value in finding.parts.items())
    state = "finite" if finding.finite else "not finite"
    return "\n".join(
        [
            f"the loss of iteration {moment.iteration} is {state}: {parts}",
            f"  first tensor that is not finite: {finding.first or 'none'}",
            f"  learning rate {moment.lr:.6g}, process {moment.rank}",
            image_names(batch),
        ]
    )
