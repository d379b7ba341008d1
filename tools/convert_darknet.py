"""Turns the weights of darknet's YOLOv2 into a checkpoint of fldet, and back.

    python tools/convert_darknet.py yolov2.cfg yolov2.weights yolov2.pth
    python tools/convert_darknet.py yolov2.cfg work_dirs/yolov2_darknet19 yolov2.weights

The cfg file says how many channels, classes and priors there are; its layers must be those of
YOLOv2. A file that ends with DarkNet-19's 18 convolutions (darknet19_448.conv.23) becomes a
checkpoint of the backbone, for ``load_from`` of a training. Files are read as numbers and text;
nothing in them is run.

A .weights file (darknet's parser.c) has a header of three int32, the version, and the number of
images seen, an int64 from version 0.2 on, before that an int32. The convolutions follow in their
order, as little-endian float32 without names or padding: biases, then scales, means and variances
if there is a norm, then the weights (out, in, height, width).
"""

import argparse
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fldet.checkpoints.files import load_weights, meta_of, read_checkpoint
from fldet.checkpoints.paths import resolve_checkpoint
from fldet.errors import CheckpointError, ConfigError, FldetError, UsageError, shorten
from fldet.files import GIB, MIB, read_bytes, read_text, write_atomically
from fldet.models.backbones.darknet19 import STAGES, DarkNet19
from fldet.models.dense_heads.yolov2_head import YOLOv2Head
from fldet.models.necks.passthrough import PassthroughNeck

VERSION = (0, 2, 0)  # what darknet writes
FIRST_LONG = (0, 2)  # version from which on the images seen are an int64
MOST = 4096  # channels and classes
BACKBONE = sum(map(len, STAGES))  # convolutions

Section = tuple[str, dict[str, str]]


@dataclass(frozen=True)
class Convolution:
    """Where the numbers of one convolution are in a state dict."""

    name: str
    conv: nn.Conv2d
    norm: str | None  # name of its batch norm

    def places(self) -> list[tuple[str, tuple[int, ...]]]:
        """Returns names and shapes of its tensors in the order of the file."""
        conv, channels = self.conv, (self.conv.out_channels,)
        weight = (f"{self.name}.weight", tuple(conv.weight.shape))
        if self.norm is None:
            return [(f"{self.name}.bias", channels), weight]
        parts = ("bias", "weight", "running_mean", "running_var")
        return [*((f"{self.norm}.{part}", channels) for part in parts), weight]

    def size(self) -> int:
        """Returns how many numbers it has."""
        return sum(int(np.prod(shape)) for _, shape in self.places())


def main(arguments: list[str] | None = None) -> int:
    """Converts one file in the direction that the endings say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cfg", type=Path, help="darknet's description of the network")
    parser.add_argument("source", type=Path, help="a .weights file; a .pth file or a work dir")
    parser.add_argument("out", type=Path, help="the other one; it may not exist yet")
    options = parser.parse_args(arguments)
    try:
        if options.out.exists():
            raise UsageError(f"{options.out} exists", expected="a name that is free")
        model = read_network(options.cfg)
        if options.out.suffix == ".pth":
            what = to_checkpoint(model, options.source, options.out)
        else:
            what = to_weights(model, resolve_checkpoint(options.source), options.out)
    except FldetError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.out}: {what}")
    return 0


# --- the two directions --------------------------------------------------------------------------


def to_checkpoint(model: nn.ModuleDict, source: Path, out: Path) -> str:
    """Writes the numbers of a .weights file as a checkpoint; returns what it is, in words."""
    data = read_bytes(source, "weights", expected="darknet's .weights", most=2 * GIB)
    version, seen, start = read_header(data, source)
    convolutions = list(convolutions_of(model))
    given, count = (len(data) - start) / 4, len(convolutions)
    if given == sum(one.size() for one in convolutions[:BACKBONE]):
        count = BACKBONE
    wanted = sum(one.size() for one in convolutions[:count])
    if given != wanted:
        raise CheckpointError(
            f"{source} has {len(data)} bytes",
            expected=f"{start + 4 * wanted}: a header of {start} and {wanted} numbers, which the "
            "cfg asks for",
            hint="a broken download, or the weights of another cfg",
        )
    numbers = np.frombuffer(data, "<f4", offset=start)
    if not np.isfinite(numbers).all():
        raise CheckpointError(f"{source} has numbers that are not finite")
    state = dict(_tensors(convolutions[:count], numbers))
    if count > BACKBONE:
        state["bbox_head.seen"] = torch.tensor(seen)
    meta = {"darknet": {"version": version, "seen": seen}}
    buffer = io.BytesIO()
    torch.save({"meta": meta, "state_dict": state}, buffer)
    write_atomically(out, buffer.getvalue())
    head: Any = model["bbox_head"]
    about = f"num_classes={head.num_classes}, priors={[*head.priors]}"
    return f"for a model with {about}" if count > BACKBONE else "for the backbone alone: load_from"


def to_weights(model: nn.ModuleDict, source: Path, out: Path) -> str:
    """Writes the weights of a checkpoint as darknet reads them; returns what they are, in words."""
    content = read_checkpoint(source)
    load_weights(model, content, source)
    given = meta_of(content).get("darknet")
    version = tuple((given or {}).get("version", VERSION)) if isinstance(given, dict) else VERSION
    if len(version) != 3 or not all(type(part) is int for part in version):
        raise CheckpointError(f"{source}: the version of darknet is {shorten(version)}")
    state, head = model.state_dict(), model["bbox_head"]
    kind = "<i8" if version[:2] >= FIRST_LONG else "<i4"
    parts = [np.array(version, "<i4").tobytes(), np.array(int(head.seen), kind).tobytes()]
    for one in convolutions_of(model):
        parts += [state[name].numpy().astype("<f4").tobytes() for name, _ in one.places()]
    write_atomically(out, b"".join(parts))
    return f"{int(head.seen)} images seen"


def read_header(data: bytes, path: Path) -> tuple[tuple[int, int, int], int, int]:
    """Returns the version, the number of images seen and the length of the header in bytes."""
    if len(data) < 16:
        raise CheckpointError(f"{path} has {len(data)} bytes", expected="a header of 16 or 20")
    major, minor, revision = np.frombuffer(data, "<i4", count=3).tolist()
    if not (0 <= major < 10 and 0 <= minor < 10 and 0 <= revision < 1000):
        raise CheckpointError(
            f"{path} begins with the version {major}.{minor}.{revision}",
            expected="darknet's .weights, version 0.1 or 0.2",
        )
    kind, start = ("<i8", 20) if (major, minor) >= FIRST_LONG else ("<i4", 16)
    if len(data) < start:
        raise CheckpointError(f"{path} has {len(data)} bytes", expected=f"a header of {start}")
    return (major, minor, revision), int(np.frombuffer(data, kind, 1, offset=12)[0]), start


def convolutions_of(model: nn.Module) -> Iterator[Convolution]:
    """Yields the convolutions of a model in the order of their making, which is the files'."""
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if isinstance(module, nn.Conv2d):
            norm = f"{name.rpartition('.')[0]}.bn"
            yield Convolution(name, module, norm if norm in modules else None)


def _tensors(
    convolutions: list[Convolution], numbers: NDArray[np.float32]
) -> Iterator[tuple[str, Tensor]]:
    start = 0
    for one in convolutions:
        for name, shape in one.places():
            end = start + int(np.prod(shape))
            yield name, torch.from_numpy(numbers[start:end].astype(np.float32).reshape(shape))
            start = end
        if one.norm:
            yield f"{one.norm}.num_batches_tracked", torch.tensor(0)


# --- the cfg -------------------------------------------------------------------------------------


def read_network(path: Path) -> nn.ModuleDict:
    """Returns backbone, neck and head with the sizes of a cfg, by the names of a detector.

    Raises:
        ConfigError: it cannot be read, or its layers are not those of YOLOv2.
        DataError: there is no such file.
    """
    text = read_text(path, "cfg", expected="darknet's description of a network", most=MIB)
    sections = read_sections(text, path)
    layers = [section for section in sections if section[0] not in ("net", "network")]
    for number, (found, wanted) in enumerate(zip(map(_kind, layers), _kinds(), strict=False)):
        if found != wanted:
            raise ConfigError(f"{path}: layer {number} is {found}", expected=f"{wanted}, as YOLOv2")
    if len(layers) != len(_kinds()):
        raise ConfigError(
            f"{path} has {len(layers)} layers", expected=f"{len(_kinds())}, as YOLOv2"
        )
    channels = [_number(path, one, "filters") for one in layers if one[0] == "convolutional"]
    region = layers[-1]
    classes = _number(path, region, "classes")
    priors = _priors(path, region)
    try:
        model = _build(channels, classes, priors)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}", expected="a network like YOLOv2") from error
    for number, one in enumerate(convolutions_of(model)):
        if one.conv.out_channels != channels[number]:
            raise ConfigError(
                f"{path}: convolution {number} has {channels[number]} filters",
                expected=f"{one.conv.out_channels}, as the others have",
            )
    return model


def _build(channels: list[int], classes: int, priors: list[tuple[float, float]]) -> nn.ModuleDict:
    fine, coarse, deep, passthrough, fused = (channels[i] for i in (12, 17, 18, 20, 21))
    neck = PassthroughNeck((fine, coarse), out_channels=deep, passthrough_channels=passthrough)
    head = YOLOv2Head(classes, fused, priors=priors)
    backbone = DarkNet19(base_channels=channels[0])
    return nn.ModuleDict({"backbone": backbone, "neck": neck, "bbox_head": head})


def read_sections(text: str, path: Path) -> list[Section]:
    """Returns the kinds of the layers of a cfg with their options, in order."""
    sections: list[Section] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.replace(" ", "").replace("\t", "")
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            sections.append((line[1:-1], {}))
        elif "=" in line and sections:
            name, _, value = line.partition("=")
            sections[-1][1][name] = value
        else:
            raise ConfigError(
                f"{path}: line {number} is {shorten(raw)}", expected="[layer] or name=value"
            )
    return sections


def _kind(section: Section) -> str:
    """Returns in words what of a layer has to be right."""
    kind, options = section
    if kind == "convolutional":
        has_norm = options.get("batch_normalize", "0") == "1"
        norm = "with" if has_norm else "without"
        size, stride = options.get("size", "1"), options.get("stride", "1")
        pads = size == "1" or options.get("pad", "0") == "1"
        words = f"{size}x{size} of stride {stride}{'' if pads else ' unpadded'}, {norm} a norm"
        return f"a convolution {words}, {options.get('activation', 'logistic')}"
    if kind in ("maxpool", "reorg"):
        return f"a {kind} of stride {options.get('stride', '1')}"
    if kind == "region":
        names = ("coords", "softmax", "bias_match")
        return f"a region with {', '.join(f'{n}={options.get(n, 0)}' for n in names)}"
    return f"a {kind} {options.get('layers', '')}".rstrip()


def _kinds() -> list[str]:
    """Returns ``_kind`` of the layers of YOLOv2."""
    three, one = (f"a convolution {k}x{k} of stride 1, with a norm, leaky" for k in (3, 1))
    kinds: list[str] = []
    for index, stage in enumerate(STAGES):
        kinds += ["a maxpool of stride 2"] if index else []
        kinds += [one if place % 2 else three for place in range(len(stage))]
    kinds += [three, three, "a route -9", one, "a reorg of stride 2", "a route -1,-4", three]
    last = "a convolution 1x1 of stride 1, without a norm, linear"
    return [*kinds, last, "a region with coords=4, softmax=1, bias_match=1"]


def _number(path: Path, section: Section, name: str) -> int:
    value = section[1].get(name, "")
    if not (value.isascii() and value.isdecimal() and 0 < int(value) <= MOST):
        raise ConfigError(
            f"{path}: {section[0]}: {name} is {shorten(value)}", expected=f"a number up to {MOST}"
        )
    return int(value)


def _priors(path: Path, region: Section) -> list[tuple[float, float]]:
    text = region[1].get("anchors", "")
    try:
        sides = [float(value) for value in text.split(",")]
        return list(zip(sides[::2], sides[1::2], strict=True))
    except ValueError as error:
        raise ConfigError(
            f"{path}: region: anchors are {shorten(text)}",
            expected="width and height of each, in cells",
        ) from error


if __name__ == "__main__":
    raise SystemExit(main())
