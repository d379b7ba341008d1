"""Turns RetinaNets of torchvision and Detectron2 into checkpoints of fldet.

    python tools/convert_retinanet.py retinanet_resnet50_fpn_coco-eeacb38b.pth torchvision.pth
    python tools/convert_retinanet.py model_final_5bd44e.pkl detectron2.pth
    fldet predict torchvision.pth photo.jpg

The names of the weights say whose file it is, and which config of configs/retinanet fits:
torchvision_r50_fpn.py, torchvision_r50_fpn_v2.py or detectron2_r50_fpn.py. The checkpoint holds the
config, and COCO's names where there are COCO's classes; others are given by --classes. For another
network than ResNet-50 name a config of your own, which inherits from one of these: --config.
Files are read as numbers; nothing in them is run.

torchvision has a class 0 for the background, which nothing learns, and COCO's numbers of
categories, with gaps: of its 91 outputs 80 are taken. Detectron2 orders the nine anchors of a
location by size, then by ratio; here it is the other way round. All else is a matter of names.
"""

import argparse
import io
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from fldet.checkpoints import content as checkpoint_file
from fldet.checkpoints.files import first_mismatch, read_checkpoint, weights_of
from fldet.config.load import format_config, load_config
from fldet.errors import CheckpointError, ConfigError, FldetError, UsageError, shorten
from fldet.files import GIB, read_bytes, write_atomically
from fldet.models.task_modules import AnchorGenerator
from fldet.registry import MODELS

ANCHORS, SCALES, RATIOS = 9, 3, 3
# COCO's 80 categories have numbers up to 90; these are not used.
GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS = [number for number in range(1, 91) if number not in GAPS]
COCO_OUTPUTS = 91

MEAN, STD = [103.53, 116.28, 123.675], [1.0, 1.0, 1.0]  # of Detectron2's pixels, BGR

State = dict[str, Tensor]


def main(arguments: list[str] | None = None) -> int:
    """Converts one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a .pth file, or a .pkl file of Detectron2")
    parser.add_argument("out", type=Path, help="the checkpoint to write; it may not exist yet")
    parser.add_argument("--config", help="a config of fldet, for another network than ResNet-50")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="names of the classes")
    parser.add_argument(
        "--norm-eps",
        type=float,
        help="of the backbone's norms, if it is not the config's: 1e-5 for a model of torchvision "
        "that was not trained from its COCO weights",
    )
    options = parser.parse_args(arguments)
    try:
        if options.out.exists():
            raise UsageError(f"{options.out} exists", expected="a name that is free")
        what = convert(
            options.source,
            options.out,
            config=options.config,
            classes=options.classes,
            norm_eps=options.norm_eps,
        )
    except FldetError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.out}: {what}")
    return 0


def convert(
    source: Path,
    out: Path,
    *,
    config: str | None = None,
    classes: list[str] | None = None,
    norm_eps: float | None = None,
) -> str:
    """Writes a file of another library as a checkpoint of fldet; returns what it is, in words.

    Raises:
        CheckpointError: it cannot be read, is of no RetinaNet, or does not fit the config.
        ConfigError: the config is none of a RetinaNet.
        UsageError: the number of ``classes`` is another.
    """
    given = read_weights(source)
    origin = origin_of(given, source)
    state = origin.convert(given, source)
    cfg = load_config(config or origin.config)
    model: Any = cfg.get("model") or {}
    if not {"backbone", "neck", "bbox_head"} <= set(model):
        raise ConfigError(f"{config} has no RetinaNet", expected=f"a config after {origin.config}")
    found = len(state["bbox_head.retina_cls.bias"]) // ANCHORS
    names = class_names(classes, found)
    model.bbox_head.num_classes = found
    if norm_eps is not None:
        model.backbone.norm_cfg.eps = norm_eps
    complete(state, cfg, source)
    meta = {"cfg": format_config(cfg), "converted": {"from": origin.name}}
    if names:
        meta["dataset_meta"] = {"classes": names}
    buffer = io.BytesIO()
    torch.save({"meta": meta, "state_dict": state}, buffer)
    write_atomically(out, buffer.getvalue())
    return f"{origin.name}'s RetinaNet of {found} classes, for {config or origin.config}"


def read_weights(path: Path) -> State:
    """Returns the weights in a file of one of the two libraries, by their names there."""
    if path.suffix != ".pkl":
        content = read_checkpoint(path)
        inner = content.get("model", content)
        return weights_of(inner if isinstance(inner, dict) else {}, path)
    data = read_bytes(path, "weights", expected="a model of Detectron2", most=4 * GIB)
    try:
        content = checkpoint_file.read_pickle(data)
    except checkpoint_file.RefusedError as refused:
        raise CheckpointError(f"cannot read {path}: {refused}", expected="arrays") from refused
    except Exception as error:  # pickle has no bounds to what it raises of a damaged file
        raise CheckpointError(f"cannot read {path}: {type(error).__name__}: {error}") from error
    arrays = content.get("model") if isinstance(content, dict) else None
    if not isinstance(arrays, dict) or not arrays:
        raise CheckpointError(f"{path} holds no model", expected="a file of Detectron2's model zoo")
    for name, value in arrays.items():
        if not (isinstance(name, str) and isinstance(value, (np.ndarray, float, int))):
            raise CheckpointError(f"{path}: {shorten(name)} is a {type(value).__name__}")
    return {name: torch.as_tensor(value) for name, value in arrays.items()}


def class_names(given: list[str] | None, count: int) -> tuple[str, ...]:
    """Returns the names of a number of classes: those given, COCO's if there are 80, else none."""
    if given is None:
        return tuple(CocoDataset.METAINFO["classes"]) if count == len(COCO_IDS) else ()
    if len(given) != count:
        raise UsageError(f"--classes has {len(given)} names", expected=f"{count}")
    return tuple(given)


def complete(state: State, cfg: Config, path: Path) -> None:
    """Adds the counters that frozen norms do not have, in place; all else must be there."""
    init_default_scope("mmdet")
    with torch.device("meta"):  # shapes without memory
        own = MODELS.build(cfg.model).state_dict()
    for name in own:
        if name.endswith(".num_batches_tracked"):
            state.setdefault(name, torch.tensor(0))
    if problem := first_mismatch(own, state):
        raise CheckpointError(
            f"{path} does not fit the config: {problem}",
            hint="name one with the same backbone and head, after those of configs/retinanet: "
            "--config",
        )


# --- whose it is ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Origin:
    """How files of one library become ours.

    ``renaming`` has for each pattern of names what they become, '' for what is left out;
    ``last_rows`` returns the rows of the last layers, of as many rows an anchor as it is told.
    """

    name: str
    config: str
    renaming: dict[str, Callable[..., str]]
    last_rows: Callable[[str, Tensor, int], Tensor]
    check: Callable[[Mapping[str, Tensor], Path], None] = lambda _given, _path: None

    def convert(self, given: Mapping[str, Tensor], path: Path) -> State:
        """Returns weights by the names of fldet."""
        self.check(given, path)
        state: State = {}
        for name, value in given.items():
            new = self._renamed(name)
            if new is None or new in state:
                raise CheckpointError(
                    f"{path}: {shorten(name)} has no place in a RetinaNet of {self.name}",
                    expected="a ResNet, a pyramid without norms, two subnets of four convolutions",
                )
            if new:
                state[new] = value
        for layer in ("retina_cls", "retina_reg"):
            for part in ("weight", "bias"):
                name = f"bbox_head.{layer}.{part}"
                value = state.get(name, torch.empty(0))
                if len(value.shape) == 0 or not len(value) or len(value) % ANCHORS:
                    raise CheckpointError(
                        f"{path}: {name} would have the shape {tuple(value.shape)}",
                        expected=f"rows for {ANCHORS} anchors at each location",
                    )
                state[name] = self.last_rows(layer, value, len(value) // ANCHORS).contiguous()
        return state

    def _renamed(self, name: str) -> str | None:
        for pattern, new in self.renaming.items():
            if found := re.fullmatch(pattern, name):
                return new(*found.groups())
        return None


def origin_of(given: Mapping[str, Tensor], path: Path) -> Origin:
    """Returns whose weights they are, by the names that they have."""
    if "backbone.bottom_up.stem.conv1.weight" in given:
        return DETECTRON2
    if "backbone.body.conv1.weight" in given and "head.regression_head.bbox_reg.bias" in given:
        is_second = "head.classification_head.conv.0.1.weight" in given
        return TORCHVISION_V2 if is_second else TORCHVISION
    raise CheckpointError(
        f"{path} has neither the names of torchvision's RetinaNet nor those of Detectron2's",
        expected=f"backbone.body... or backbone.bottom_up..., not {shorten(next(iter(given)))}",
    )


def without_background(layer: str, value: Tensor, each: int) -> Tensor:
    """Returns the rows of torchvision's last layers that are boxes or classes."""
    if layer == "retina_reg":
        return value
    rows = COCO_IDS if each == COCO_OUTPUTS else list(range(1, each))
    return value.unflatten(0, (ANCHORS, each))[:, rows].flatten(0, 1)


def by_ratio_first(_layer: str, value: Tensor, each: int) -> Tensor:
    """Returns the rows of Detectron2's last layers with the anchors in our order."""
    return value.unflatten(0, (SCALES, RATIOS, each)).transpose(0, 1).flatten(0, 2)


def check_anchors_and_pixels(given: Mapping[str, Tensor], path: Path) -> None:
    """Checks what some files of Detectron2 say besides their weights."""
    ours = AnchorGenerator().base_anchors
    for level, anchors in enumerate(ours):
        theirs = given.get(f"anchor_generator.cell_anchors.{level}")
        if theirs is None:
            continue
        if theirs.numel() != anchors.numel() or not torch.allclose(
            by_ratio_first("", theirs.float().reshape(ANCHORS, -1), 1), anchors, rtol=1e-4
        ):
            raise CheckpointError(
                f"{path} has other anchors on level {level}", expected="those of its model zoo"
            )
    for name, numbers in (("pixel_mean", MEAN), ("pixel_std", STD)):
        value = given.get(name)
        if value is not None and not np.allclose(value.flatten().tolist(), numbers, rtol=1e-4):
            raise CheckpointError(
                f"{path}: {name} is {shorten(value.flatten().tolist())}",
                expected=f"{numbers}, as in its model zoo",
            )


def _of_torchvision(kind: str, number: str, part: str) -> str:
    return f"bbox_head.{'cls' if kind == 'classification' else 'reg'}_convs.{number}.{part}"


OF_TORCHVISION = {
    r"backbone\.body\.(.+)": "backbone.{}".format,
    r"backbone\.fpn\.inner_blocks\.(\d)(?:\.0)?\.(\w+)": "neck.lateral_convs.{}.conv.{}".format,
    r"backbone\.fpn\.layer_blocks\.(\d)(?:\.0)?\.(\w+)": "neck.fpn_convs.{}.conv.{}".format,
    r"backbone\.fpn\.extra_blocks\.p6\.(\w+)": "neck.fpn_convs.3.conv.{}".format,
    r"backbone\.fpn\.extra_blocks\.p7\.(\w+)": "neck.fpn_convs.4.conv.{}".format,
    r"head\.classification_head\.cls_logits\.(\w+)": "bbox_head.retina_cls.{}".format,
    r"head\.regression_head\.bbox_reg\.(\w+)": "bbox_head.retina_reg.{}".format,
    r"head\.(\w+)_head\.conv\.(\d)\.0\.(\w+)": lambda kind, number, part: _of_torchvision(
        kind, number, f"conv.{part}"
    ),
    r"head\.(\w+)_head\.conv\.(\d)\.1\.(\w+)": lambda kind, number, part: _of_torchvision(
        kind, number, f"gn.{part}"
    ),
    # files of torchvision before 0.13: a convolution, a ReLU, a convolution, ...
    r"head\.(\w+)_head\.conv\.([0246])\.(\w+)": lambda kind, number, part: _of_torchvision(
        kind, str(int(number) // 2), f"conv.{part}"
    ),
}
BLOCK = r"backbone\.bottom_up\.res(\d)\.(\d+)"
OF_DETECTRON2 = {
    r"backbone\.bottom_up\.stem\.conv1\.weight": "backbone.conv1.weight".format,
    r"backbone\.bottom_up\.stem\.conv1\.norm\.(\w+)": "backbone.bn1.{}".format,
    BLOCK + r"\.shortcut\.weight": lambda stage, block: (
        f"backbone.layer{int(stage) - 1}.{block}.downsample.0.weight"
    ),
    BLOCK + r"\.shortcut\.norm\.(\w+)": lambda stage, block, part: (
        f"backbone.layer{int(stage) - 1}.{block}.downsample.1.{part}"
    ),
    BLOCK + r"\.conv(\d)\.weight": lambda stage, block, number: (
        f"backbone.layer{int(stage) - 1}.{block}.conv{number}.weight"
    ),
    BLOCK + r"\.conv(\d)\.norm\.(\w+)": lambda stage, block, number, part: (
        f"backbone.layer{int(stage) - 1}.{block}.bn{number}.{part}"
    ),
    r"backbone\.fpn_lateral([345])\.(\w+)": lambda level, part: (
        f"neck.lateral_convs.{int(level) - 3}.conv.{part}"
    ),
    r"backbone\.(?:fpn_output|top_block\.p)([34567])\.(\w+)": lambda level, part: (
        f"neck.fpn_convs.{int(level) - 3}.conv.{part}"
    ),
    r"head\.cls_subnet\.([0246])\.(\w+)": lambda number, part: (
        f"bbox_head.cls_convs.{int(number) // 2}.conv.{part}"
    ),
    r"head\.bbox_subnet\.([0246])\.(\w+)": lambda number, part: (
        f"bbox_head.reg_convs.{int(number) // 2}.conv.{part}"
    ),
    r"head\.cls_score\.(\w+)": "bbox_head.retina_cls.{}".format,
    r"head\.bbox_pred\.(\w+)": "bbox_head.retina_reg.{}".format,
    r"anchor_generator\.cell_anchors\.\d|pixel_mean|pixel_std": "".format,
}
TORCHVISION = Origin(
    "torchvision", "retinanet/torchvision_r50_fpn.py", OF_TORCHVISION, without_background
)
TORCHVISION_V2 = replace(TORCHVISION, config="retinanet/torchvision_r50_fpn_v2.py")
DETECTRON2 = Origin(
    *("Detectron2", "retinanet/detectron2_r50_fpn.py", OF_DETECTRON2, by_ratio_first),
    check=check_anchors_and_pixels,
)


if __name__ == "__main__":
    raise SystemExit(main())
