"""Collecting what an analysis draws: a model runs over images once, its numbers go to a file.

The file is all that ``fldet.analysis`` needs; it reads it without a model and without a GPU.
"""

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models.dense_heads import AnchorHead
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import Tensor, nn

from fldet.analysis.loss_cdf.curves import Procedure
from fldet.checkpoints.model import load_model, model_in_words
from fldet.checkpoints.paths import resolve_checkpoint
from fldet.config.prepare import dataset_of
from fldet.devices import device_name, select_device
from fldet.engine.workers import worker_errors
from fldet.errors import CheckpointError, ConfigError, UsageError
from fldet.files import write_atomically
from fldet.models.dense_heads.anchor_loss import flatten_levels
from fldet.progress import with_progress
from fldet.registry import DATASETS

log = logging.getLogger("fldet")

WINDOWS = ("anchor-class", "anchor")

_CHUNK = 1 << 20  # values of a stream that are looked at together


class Reservoir:
    """A uniform sample of ``size`` values, without replacement, of a stream of unknown length.

    Every value gets a random key, and the values with the smallest keys stay. Keys follow the
    order of the stream, so the sample does not depend on how the stream is cut into pieces.
    ``seen`` is how many values have come.
    """

    def __init__(self, size: int, seed: int | tuple[int, ...] = 0) -> None:
        self.size = size
        self.seen = 0
        self._random = np.random.default_rng(seed)
        room = size + max(size // 4, _CHUNK)
        self._keys = np.empty(room, np.float64)
        self._values = np.empty(room, np.float32)
        self._filled = 0
        self._limit = 1.0  # keys from here on are not among the smallest

    def add(self, values: NDArray[Any]) -> None:
        """Takes the next values of the stream, (N,) of any float type, kept as float32."""
        for start in range(0, len(values), _CHUNK):
            chunk = values[start : start + _CHUNK]
            keys = self._random.random(len(chunk))
            chosen = np.flatnonzero(keys < self._limit)
            if self._filled + len(chosen) > len(self._keys):
                self._drop_largest()
            place = slice(self._filled, self._filled + len(chosen))
            self._keys[place], self._values[place] = keys[chosen], chunk[chosen]
            self._filled += len(chosen)
        self.seen += len(values)

    def sample(self) -> NDArray[np.float32]:
        """Returns the values kept, ascending."""
        self._drop_largest()
        return np.sort(self._values[: self._filled])

    def _drop_largest(self) -> None:
        if self._filled <= self.size:
            return
        order = np.argpartition(self._keys[: self._filled], self.size)
        self._limit = float(self._keys[order[self.size]])
        kept = order[: self.size]
        self._keys[: self.size] = self._keys[kept]
        self._values[: self.size] = self._values[kept]
        self._filled = self.size


@dataclass(frozen=True)
class SampleOptions:
    """Which examples a sample is of.

    Attributes:
        split: of the data: ``train``, ``val`` or ``test``.
        window: ``anchor-class``, or ``anchor``: of a background anchor the highest score only.
        num_negatives: negatives to keep, at most.
        num_positives: positives to keep, at most.
        max_images: so many images, chosen at random; None takes all.
        seed: of the choice of images and of both samples.
    """

    split: str = "val"
    window: str = "anchor-class"
    num_negatives: int = 10_000_000
    num_positives: int = 100_000
    max_images: int | None = None
    seed: int = 0


_ALL = SampleOptions()


def collect_logits(
    cfg: Config,
    checkpoint: Path,
    out: Path,
    sampling: SampleOptions = _ALL,
    *,
    device: str = "auto",
) -> Path:
    """Writes a sample of the signed logits x_t of a model on its data; returns ``out``.

    The procedure is that of Figure 4, with what the paper leaves open settled like this: images
    are prepared as for a test; anchors get their labels from the head, as in training; a positive
    is an anchor with its true class, a negative a background anchor with any class; ignored
    anchors are left out; both are sampled uniformly.

    The file is an ``.npz``: ``positives`` and ``negatives``, (N,) float32, ascending, and
    ``procedure``, JSON text that says how they were made and how many were seen.

    Raises:
        UsageError: an unknown window or split, or the model is not one with anchors and sigmoids.
        CheckpointError: the weights do not fit, or give scores that are not finite.
        ConfigError, DataError, UnavailableError: see ``fldet.errors``.
    """
    split, window = sampling.split, sampling.window
    if window not in WINDOWS:
        raise UsageError(f"unknown window {window!r}", expected=" or ".join(WINDOWS))
    dataset_of(cfg, split)  # the split is known and is one data set
    torch_device = select_device(device)
    path = resolve_checkpoint(checkpoint)
    loaded = load_model(cfg, path, phases=(split,))
    _check_head(loaded.model)
    dataset = _dataset(loaded.cfg, sampling)
    log.info("%s on %d images of %s, on %s", path, len(dataset), split, device_name(torch_device))
    scored = _scored(loaded.model.to(torch_device), dataset, loaded.cfg)
    shown = with_progress(scored, "images", len(dataset), in_log=True)
    positives, negatives = _sampled(shown, sampling)
    procedure = Procedure(
        config=Path(cfg.filename or "config").stem,
        checkpoint=path.name,
        split=split,
        window=window,
        images=len(dataset),
        seed=sampling.seed,
        positives_seen=positives.seen,
        negatives_seen=negatives.seen,
    )
    buffer = io.BytesIO()
    np.savez(
        buffer,
        positives=positives.sample(),
        negatives=negatives.sample(),
        procedure=np.array(json.dumps(vars(procedure))),
    )
    return write_atomically(out, buffer.getvalue())


def _sampled(
    scored: Iterator[tuple[Tensor, Tensor, Tensor]], sampling: SampleOptions
) -> tuple[Reservoir, Reservoir]:
    """Returns samples of the positives and of the negatives of all images."""
    positives = Reservoir(sampling.num_positives, (sampling.seed, 1))
    negatives = Reservoir(sampling.num_negatives, (sampling.seed, 2))
    with worker_errors():
        for logits, labels, weights in scored:
            of_objects, of_background = split_logits(logits, labels, weights, sampling.window)
            positives.add(of_objects.cpu().numpy())
            negatives.add(of_background.cpu().numpy())
    return positives, negatives


def split_logits(
    logits: Tensor, labels: Tensor, label_weights: Tensor, window: str = "anchor-class"
) -> tuple[Tensor, Tensor]:
    """Returns the signed logits x_t (Appendix A) of the positives and of the negatives.

    Args:
        logits: (A, K) raw scores of an image's anchors.
        labels: (A,) 0..K-1, and K for background.
        label_weights: (A,) 0 for an ignored anchor.
        window: as in ``SampleOptions``.

    Returns:
        (P,), one for each anchor of an object; and (B * K,) of B background anchors, class by
        class, or (B,) for the window ``anchor``.
    """
    num_classes, counted = logits.shape[1], label_weights > 0
    rows = ((labels < num_classes) & counted).nonzero().squeeze(1)
    background = -logits[(labels == num_classes) & counted]
    if window == "anchor":
        background = background.amin(dim=1)
    return logits[rows, labels[rows]], background.flatten()


def _check_head(model: nn.Module) -> None:
    head = getattr(model, "bbox_head", None)
    if not (isinstance(head, AnchorHead) and head.use_sigmoid_cls and head.train_cfg):
        raise UsageError(
            f"the model of the config is a {model_in_words(model)}",
            expected="a head with anchors, sigmoid scores and train_cfg, as fldet.RetinaHead",
        )


def _dataset(cfg: Config, sampling: SampleOptions) -> BaseDataset:
    """Returns the images of a split, or a random part of them, prepared as for a test."""
    if not cfg.get("test_dataloader"):
        raise ConfigError(
            "the config has neither val_dataloader nor test_dataloader",
            expected="one of them: its pipeline says how images are prepared without augmentation",
        )
    inner = cfg[f"{sampling.split}_dataloader"].dataset
    while "pipeline" not in inner and "dataset" in inner:  # each image once, whatever wraps them
        inner = inner.dataset
    options = {**inner, "test_mode": True}
    options["pipeline"] = cfg.test_dataloader.dataset.pipeline
    dataset = DATASETS.build(options)
    dataset.full_init()
    count = sampling.max_images
    if count is not None and count < len(dataset):
        random = np.random.default_rng((sampling.seed, 0))
        dataset.get_subset_(sorted(random.choice(len(dataset), count, replace=False).tolist()))
    return dataset


@torch.no_grad()
def _scored(
    model: nn.Module, dataset: BaseDataset, cfg: Config
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields for each image logits (A, K), labels (A,) and label weights (A,)."""
    head: Any = model.bbox_head
    loader = cfg.test_dataloader
    options = {
        "dataset": dataset,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "batch_size": loader.get("batch_size", 1),
        "num_workers": loader.get("num_workers", 0),
    }
    done = 0
    for batch in Runner.build_dataloader(options):
        data = model.data_preprocessor(batch, False)  # type: ignore[operator]
        metas = [sample.metainfo for sample in data["data_samples"]]
        maps, _ = model(data["inputs"], data["data_samples"], mode="tensor")
        logits = flatten_levels(maps, head.cls_out_channels)
        if not bool(torch.isfinite(logits).all()):
            raise CheckpointError(
                f"scores that are not finite, on image {done} or the {len(metas) - 1} after it",
                expected="the weights of a training that did not diverge",
            )
        instances = [dataset.get_data_info(done + i)["instances"] for i in range(len(metas))]
        yield from zip(logits, *_labels(head, maps, instances, metas), strict=True)
        done += len(metas)


def _labels(
    head: AnchorHead,
    maps: list[Tensor],
    instances: list[list[dict[str, Any]]],
    metas: list[dict[str, Any]],
) -> tuple[Tensor, Tensor]:
    """Returns labels and label weights, (N, A) each, as the head gives them in training."""
    device = maps[0].device
    truths = [_ground_truth(*pair, device) for pair in zip(instances, metas, strict=True)]
    objects, crowds = (list(part) for part in zip(*truths, strict=True))
    anchors, valid_flags = head.get_anchors([m.shape[-2:] for m in maps], metas, device)
    labels, weights, *_ = head.get_targets(anchors, valid_flags, objects, metas, crowds)
    return torch.cat(labels, dim=1), torch.cat(weights, dim=1)


def _ground_truth(
    instances: list[dict[str, Any]], meta: dict[str, Any], device: torch.device
) -> tuple[InstanceData, InstanceData]:
    """Returns objects and crowd regions in pixels of the network's input.

    They are read from the data set and not from its pipeline: in that of a test the boxes stay in
    pixels of the file.
    """
    height, width = meta["img_shape"][:2]
    scale = torch.tensor(tuple(meta.get("scale_factor", (1.0, 1.0))) * 2)
    edge = torch.tensor([width, height, width, height])
    parts = []
    for ignored in (False, True):
        chosen = [one for one in instances if bool(one["ignore_flag"]) == ignored]
        boxes = torch.tensor([one["bbox"] for one in chosen], dtype=torch.float32).reshape(-1, 4)
        labels = torch.tensor([one["bbox_label"] for one in chosen], dtype=torch.long)
        inside = torch.minimum((boxes * scale).clamp(min=0), edge)  # as training clips them
        parts.append(InstanceData(bboxes=inside, labels=labels).to(device))
    return parts[0], parts[1]
