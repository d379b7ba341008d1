"""A trained model as a function from images to boxes.

``Detector`` reads, prepares and batches; what runs the network is ``_run_batch``, which an
exported model replaces (``fldet.inference.exported``).
"""

import contextlib
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from fldet.checkpoints.files import checkpoint_classes, load_weights, read_checkpoint, weights_of
from fldet.checkpoints.literals import MOST_PIXELS
from fldet.checkpoints.model_folder import thresholds_beside
from fldet.checkpoints.paths import EXPORTED, resolve_checkpoint
from fldet.checkpoints.stored_config import (
    building,
    explained,
    find_pipeline,
    stored_config,
)
from fldet.config.check import validate
from fldet.config.decoder import with_decoder
from fldet.config.load import load_config
from fldet.config.nms import suppress_across_classes
from fldet.config.prepare import prepare_config
from fldet.data.folds.files import is_folder_of_folds
from fldet.data.slicing.views import Views, rescaled
from fldet.devices import select_device
from fldet.errors import CheckpointError, ConfigError, DataError, UsageError, shorten
from fldet.inference.detections import Detections
from fldet.inference.image_detector import (
    Image,
    ImageDetector,
    ThresholdSource,
    require_pixels,
)
from fldet.models.fast.optimize import is_optimized, optimized, require_precision
from fldet.registry import MODELS

if TYPE_CHECKING:
    from fldet.inference.views import DetectorOfViews


@dataclass(frozen=True)
class Prepared:
    """An image as the network takes it."""

    inputs: Tensor  # (3, h, w), resized, not yet normalized
    sample: Any  # ``DetDataSample`` with the sizes before and after
    height: int  # of the file, upright, in pixels
    width: int
    padded: tuple[int, int]  # (h, w) after padding in a batch of its own
    source: npt.NDArray[np.uint8] | None = None  # the array that was given, None for a file


class Detector(ImageDetector):
    """Finds objects in images; made by ``Detector.load``.

    Args:
        model: in evaluation mode, on ``device``.
        pipeline: transforms of the test images as in a config.
        classes: names by label.
        device: where the network runs.
        thresholds: as ``load`` takes them.
    """

    lowest_score = 0.0  # what is below it is left out in the file already

    def __init__(
        self,
        model: nn.Module,
        pipeline: Sequence[Mapping[str, Any]],
        classes: tuple[str, ...],
        device: torch.device,
        thresholds: ThresholdSource = None,
    ) -> None:
        self.model = model
        self.pipeline = [dict(step) for step in pipeline]
        if any("largest" in step for step in self.pipeline):  # what follows is as that needs it
            self.pipeline = with_decoder(self.pipeline, "fast")
        self.classes = classes
        self.device = device
        self.use_thresholds(thresholds)
        self.size_divisor = _size_divisor(model)  # what height and width are padded to multiples of
        self._load, self._transform = _build_pipeline(self.pipeline)
        self.source: Path | None = None  # the file of the weights
        self.is_agnostic = False  # whether boxes suppress those of other classes
        # The file whose config has built but not looked at an image yet.
        self._unproven: Path | None = None
        self._is_stored = False

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        config: str | Path | Config | None = None,
        device: str = "auto",
        *,
        trust: bool = False,
        agnostic_nms: bool = False,
        thresholds: ThresholdSource = None,
        engine: str | None = None,
        precision: str | None = None,
    ) -> "Detector":
        """Returns a detector with the weights of a checkpoint, or of an exported model.

        What the file says of itself is not run, and may name only what ``stored_names`` lists;
        docs/reliability.md states the promise.

        Args:
            checkpoint: a ``.pth`` file, a work dir (its best checkpoint, else its newest), a folder
                of ``fldet package``, a file that ``fldet export`` wrote, or the folder of a
                cross-validation: the detectors of all folds as one.
            config: only for checkpoints that carry none, or one that may not be used; a file, or
                what ``load_config`` returned. It may name what it likes.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            trust: allow the file to run code: a TorchScript model, a checkpoint that holds more
                than tensors and plain values.
            agnostic_nms: suppress boxes across classes, so that an object has one box.
            thresholds: the lowest score of each class: a file of ``fldet analyze thresholds``, or
                scores by class name. None is what an exported or packaged model carries, if it
                does.
            engine: what runs an ONNX file: ``onnxruntime``, which None is too, or ``openvino``.
            precision: ``bf16`` has the network compute in bfloat16: an optimized copy of a
                checkpoint's model, or OpenVINO. None, or ``fp32``: in float32.

        Raises:
            UsageError: the thresholds are of other classes, an engine is named for what is not an
                ONNX file, or bfloat16 for an engine that has none.
            CheckpointError: unreadable, without a config, or of another model than the config's.
            ConfigError, UnavailableError: see ``fldet.errors``.
        """
        if is_folder_of_folds(Path(checkpoint)) and engine is None:
            from fldet.inference.ensemble import load_ensemble

            ensemble = load_ensemble(
                *(Path(checkpoint), config, device, precision),
                trust=trust,
                agnostic_nms=agnostic_nms,
            )
            ensemble.use_thresholds(thresholds)
            return ensemble
        path = resolve_checkpoint(Path(checkpoint))
        if path.suffix in EXPORTED or engine is not None:
            from fldet.inference.exported import load_exported

            detector: Detector = load_exported(
                *(path, device, engine, precision), trust=trust, agnostic_nms=agnostic_nms
            )
            detector.source, detector.is_agnostic = path, agnostic_nms
            detector.use_thresholds(thresholds)
            return detector
        chosen = select_device(device)
        if precision:
            require_precision(precision, chosen)
        content = read_checkpoint(path, trust=trust)
        cfg = read_config(content, path, config)
        if agnostic_nms:
            suppress_across_classes(cfg.model)
        pipeline, names = find_pipeline(cfg), class_names(cfg, content, path)
        if not pipeline:
            raise ConfigError("the config has no test_dataloader, val_dataloader or test_pipeline")
        init_default_scope(cfg.get("default_scope", "mmdet"))
        numbers = sum(value.numel() for value in weights_of(content, path).values())
        with contextlib.nullcontext() if config is not None else building(path, numbers):
            model = MODELS.build(cfg.model)
            detector = cls(model.eval(), pipeline, names, chosen)
        detector.use_thresholds(thresholds_beside(path) if thresholds is None else thresholds)
        load_weights(model, content, path)
        model.to(chosen)
        if precision:
            detector.model = optimized(model, precision=precision)
        detector._unproven = None if config is not None else path
        detector._is_stored = config is None
        detector.source, detector.is_agnostic = path, agnostic_nms
        return detector

    def __repr__(self) -> str:
        names = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
        source = f" of {self.source}" if self.source else ""
        return f"<Detector{source}: {len(self.classes)} classes ({names}), on {self.device}>"

    def with_views(
        self,
        size: int | None = None,
        *,
        overlap: float = 0.2,
        whole: bool = False,
        flip: bool = False,
        scales: Sequence[float] = (),
    ) -> "DetectorOfViews":
        """Returns a detector that looks at each image several times and merges what it finds.

        See docs/large-pictures.md, and ``fldet.data.slicing.views.Views`` for the arguments.

        Raises:
            UsageError: views that cannot be.
            ConfigError: other scales, and no ``Resize`` in the test pipeline.
        """
        return self.looking_at(Views(size, overlap, whole, flip, tuple(scales)))

    def looking_at(self, views: Views) -> "DetectorOfViews":
        """Returns a detector that looks at each image in these views."""
        from fldet.inference.views import DetectorOfViews

        return DetectorOfViews(self, views)

    def prepare(self, image: Image) -> Prepared:
        """Returns one image as the network takes it; safe to call from several threads.

        Raises:
            DataError: it cannot be read, or not be resized.
        """
        return self.prepare_loaded(self.read(image), image)

    def read(self, image: Image) -> dict[str, Any]:
        """Returns what the later steps of the pipeline get: ``img`` (H, W, 3) and its size."""
        if isinstance(image, np.ndarray):
            return _from_array(image, self._load)
        return _from_file(image, self._load)

    def prepare_loaded(self, loaded: dict[str, Any], image: Image) -> Prepared:
        """Returns an image that is read, or a part of it, as the network takes it."""
        height, width = loaded["ori_shape"][:2]
        with self._explained("cannot prepare an image"):
            try:
                packed = self._transformed(loaded, image)
            except (cv2.error, ValueError, ZeroDivisionError) as error:
                raise DataError(
                    f"cannot resize {_name(image)} of {width}x{height} pixels: {_reason(error)}"
                ) from error
            inputs = packed["inputs"]
        step = self.size_divisor
        padded = (-(-inputs.shape[1] // step) * step, -(-inputs.shape[2] // step) * step)
        source = image if isinstance(image, np.ndarray) else None
        return Prepared(inputs, packed["data_samples"], int(height), int(width), padded, source)

    def use_decoder(self, decoder: str) -> None:
        """Has images decoded as the line ``decoder`` of a config says: ``exact`` or ``fast``.

        Raises:
            UsageError: there is no such decoder.
            ConfigError: ``fast``, and the test pipeline does not resize what it loads.
        """
        self.pipeline = with_decoder(self.pipeline, decoder)
        self._load, self._transform = _build_pipeline(self.pipeline)

    def faster(self) -> "Detector":
        """Returns this detector with an optimized copy of its model, if there can be one.

        Scores are within 1e-5 of the model's; see ``fldet.models.fast.optimize``.
        """
        if is_optimized(self.model) or not hasattr(self.model, "backbone"):  # or an exported one
            return self
        other = copy.copy(self)
        with contextlib.suppress(UsageError):
            other.model = optimized(self.model)
        return other

    def rescaled(self, scale: float) -> "Detector":
        """Returns this detector with a pipeline that resizes to another size; see ``rescaled``."""
        other = copy.copy(self)
        other.pipeline = rescaled(self.pipeline, scale)
        other._load, other._transform = _build_pipeline(other.pipeline)
        return other

    def _transformed(self, loaded: dict[str, Any], image: Image) -> dict[str, Any]:
        """Returns an image after the transforms; a stored config may not make it huge."""
        if not self._is_stored:
            return dict(self._transform(loaded))
        for step in self._transform.transforms:
            loaded = step(loaded)
            if "img" in loaded and loaded["img"].shape[0] * loaded["img"].shape[1] > MOST_PIXELS:
                height, width = loaded["img"].shape[:2]
                raise DataError(
                    f"the stored config makes {_name(image)} {width}x{height} pixels large",
                    expected=f"at most {MOST_PIXELS} pixels",
                    hint="name the config yourself: --config CONFIG",
                )
        return loaded

    def _explained(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Blames a stored config for errors until it has found objects in a first image."""
        return explained(self._unproven, what) if self._unproven else contextlib.nullcontext()

    def _detect_batch(self, batch: Sequence[Prepared], score_thr: float) -> list[Detections]:
        with self._explained("cannot find objects"):
            found = self._run_batch(batch, score_thr)
        self._unproven = None
        return found

    @torch.inference_mode()
    def _run_batch(self, batch: Sequence[Prepared], score_thr: float) -> list[Detections]:
        model: Any = with_score_thr(self.model, score_thr)
        samples = model.test_step(as_batch(batch))
        return [self.as_detections(sample.pred_instances, score_thr) for sample in samples]

    def as_detections(self, instances: Any, score_thr: float) -> Detections:
        """Returns the instances of one image, in pixels of the file, from a score upwards."""
        kept = instances[instances.scores >= score_thr].cpu()
        boxes = getattr(kept.bboxes, "tensor", kept.bboxes)
        return self.named(boxes.numpy(), kept.scores.numpy(), kept.labels.numpy())


def with_score_thr(model: nn.Module, score_thr: float) -> nn.Module:
    """Returns a model with the same weights whose heads give the scores that are wanted.

    Above the threshold, the rest is work for nothing; below, lost. The model itself stays as it is:
    another thread may ask it for other scores at the same time.
    """
    view = _copied(model)
    for name in ("bbox_head", "roi_head"):
        cfg = getattr(getattr(model, name, None), "test_cfg", None)
        if cfg is not None and "score_thr" in cfg:
            head: Any = _copied(getattr(model, name))
            head.test_cfg = ConfigDict({**cfg, "score_thr": score_thr})
            view._modules[name] = head
    return view


def _copied(module: nn.Module) -> nn.Module:
    """Returns a module with the same parameters and parts, which may get other ones."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied


def _size_divisor(model: Any) -> int:
    divisor = getattr(model.data_preprocessor, "pad_size_divisor", 1)
    if type(divisor) is not int or divisor < 1:
        raise ConfigError(
            f"model.data_preprocessor.pad_size_divisor is {shorten(divisor)}",
            expected="a number of pixels, at least 1",
        )
    return divisor


def as_batch(batch: Sequence[Prepared]) -> dict[str, Any]:
    """Returns prepared images as a model's ``test_step`` takes them."""
    return {
        "inputs": [one.inputs for one in batch],
        "data_samples": [one.sample for one in batch],
    }


def read_config(
    content: Mapping[str, Any], path: Path, config: str | Path | Config | None
) -> Config:
    """Returns the config of a checkpoint's model: the given one, else the one that it carries."""
    if config is not None:
        cfg = config if isinstance(config, Config) else load_config(config)
        return prepare_config(cfg, phases=(), classes=checkpoint_classes(content, path))
    cfg = stored_config(content, path)
    if cfg is None:
        raise CheckpointError(
            f"{path} carries no config",
            expected="a checkpoint of a run, as MMEngine writes it",
            hint="name the config that it was trained with: --config CONFIG",
        )
    validate(Config({"model": cfg.model, "default_scope": cfg.get("default_scope", "mmdet")}))
    return cfg


def class_names(cfg: Config, content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Returns the class names by label: the checkpoint's, else the config's, else numbers."""
    dataset = (cfg.get("test_dataloader") or cfg.get("val_dataloader") or {}).get("dataset") or {}
    names = checkpoint_classes(content, path) or (dataset.get("metainfo") or {}).get("classes")
    return tuple(names or map(str, range(_num_classes(cfg.model))))


def _num_classes(model: Mapping[str, Any]) -> int:
    """Returns the largest ``num_classes`` anywhere in a model's config."""
    found = [model["num_classes"]] if isinstance(model.get("num_classes"), int) else [0]
    return max(found + [_num_classes(part) for part in model.values() if isinstance(part, dict)])


def _build_pipeline(pipeline: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
    """Returns what reads a file, and what is done after it; annotations are left out."""
    from mmcv.transforms import Compose
    from mmdet.registry import TRANSFORMS

    steps = [ConfigDict(step) for step in pipeline if "Annotations" not in step["type"]]
    if not steps or "LoadImage" not in steps[0]["type"]:
        raise ConfigError(
            f"the test pipeline begins with {steps[0]['type'] if steps else 'nothing'}",
            expected="LoadImageFromFile as its first transform",
        )
    if steps[0]["type"].rpartition(".")[2] == "LoadImageFromFile":
        steps[0]["type"] = "fldet.LoadImageFromFile"  # with its bounds
    return TRANSFORMS.build(steps[0]), Compose([TRANSFORMS.build(step) for step in steps[1:]])


def _from_array(image: npt.NDArray[Any], load: Any) -> dict[str, Any]:
    require_pixels(image)
    pixels = image.astype(np.float32) if getattr(load, "to_float32", False) else image
    shape = image.shape[:2]
    return {"img": pixels, "img_path": None, "img_id": 0, "img_shape": shape, "ori_shape": shape}


def _from_file(path: str | Path, load: Any) -> dict[str, Any]:
    if not Path(path).is_file():
        raise DataError(f"no such image: {path}")
    if not Path(path).stat().st_size:
        raise DataError(f"cannot read the image {path}: the file is empty")
    try:
        loaded = load({"img_path": str(path), "img_id": 0})
    except DataError:
        raise
    except Exception as error:  # whatever a reader raises, the file is the reason
        raise DataError(f"cannot read the image {path}: {_reason(error)}") from error
    if loaded is None:
        raise DataError(f"cannot read the image {path}")
    return dict(loaded)


def _name(image: Image) -> str:
    return "the array" if isinstance(image, np.ndarray) else str(image)


def _reason(error: Exception) -> str:
    if isinstance(error, AssertionError):  # MMCV's way to say it
        return "OpenCV cannot decode it"
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
