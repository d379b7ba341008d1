"""Exported models as detectors: ONNX through its engines, TorchScript through torch.

What is around the network (reading, resizing, normalizing and padding; after raw maps, boxes and
NMS) is done by the same code as for a checkpoint, from the description in the file.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from fldet.checkpoints.literals import class_tuple, read_literals
from fldet.checkpoints.paths import require_file
from fldet.checkpoints.stored_config import building, checked
from fldet.config.nms import suppress_across_classes
from fldet.devices import select_device
from fldet.errors import CheckpointError, UnavailableError, UsageError
from fldet.inference.detections import Detections
from fldet.inference.detector import Detector, Prepared, as_batch, with_score_thr
from fldet.inference.engines import KEY, has_cuda, open_engine, unreadable
from fldet.inference.networks import kinds_of_maps
from fldet.inference.onnx import of_images, thresholds_of
from fldet.models.fast.optimize import require_precision
from fldet.registry import MODELS

Array = npt.NDArray[Any]
Run = Callable[[dict[str, Tensor]], list[Tensor]]


class ExportedDetector(Detector):
    """Finds objects with a model that ``fldet export`` wrote, from its checked description.

    ``run`` returns the outputs of the model for ``images`` (N, 3, H, W) float32 and ``sizes`` (N,
    2), height and width of each image before padding.
    """

    def __init__(
        self,
        run: Run,
        description: dict[str, Any],
        device: torch.device,
        precision: str | None = None,
    ) -> None:
        init_default_scope("mmdet")
        around = nn.Module()
        around.data_preprocessor = MODELS.build(ConfigDict(description["data_preprocessor"]))
        self.inside = description["post_process"] == "inside"
        self.lowest_score = float(description["score_thr"])
        if not self.inside:
            around.bbox_head = MODELS.build(ConfigDict(description["bbox_head"]))
        super().__init__(
            around.eval(),
            description["pipeline"],
            tuple(description["classes"]),
            device,
            description.get("thresholds"),
        )
        self._run = run
        names = ["int8"] if description.get("precision") == "int8" else []
        names += ["bfloat16"] if precision == "bf16" else []
        self.precision = " and ".join(names) or "float32"

    def _run_batch(self, batch: Sequence[Prepared], score_thr: float) -> list[Detections]:
        return self.found(as_batch(batch), score_thr)

    def inputs(self, data: dict[str, Any]) -> dict[str, Tensor]:
        """Returns what the model takes of a batch as pipelines make it."""
        model: Any = self.model
        data = model.data_preprocessor(data, False)
        sizes = [sample.img_shape[:2] for sample in data["data_samples"]]
        return {"images": data["inputs"], "sizes": torch.tensor(sizes, dtype=torch.float32)}

    @torch.inference_mode()
    def found(self, data: dict[str, Any], score_thr: float) -> list[Detections]:
        """Returns the objects in a batch as pipelines make it, in pixels of the files."""
        model: Any = with_score_thr(self.model, score_thr)
        outputs = self._run(self.inputs(data))
        metas = [sample.metainfo for sample in data["data_samples"]]
        if self.inside:
            factors = [np.tile(np.asarray(meta["scale_factor"], np.float32), 2) for meta in metas]
            arrays = [output.numpy() for output in outputs]
            return [self.named(*rows) for rows in of_images(arrays, factors, score_thr, self)]
        kinds = len(kinds_of_maps(model.bbox_head))
        levels = len(outputs) // kinds
        maps = [outputs[kind * levels : (kind + 1) * levels] for kind in range(kinds)]
        found = model.bbox_head.predict_by_feat(*maps, batch_img_metas=metas, rescale=True)
        return [self.as_detections(one, score_thr) for one in found]


class ExportedModel(nn.Module):
    """An exported model in the place of a config's, for ``fldet.engine.test.test``."""

    def __init__(self, detector: ExportedDetector) -> None:
        super().__init__()
        self.detector = detector
        self.classes, self.precision = detector.classes, detector.precision
        head: Any = getattr(detector.model, "bbox_head", None)
        self.score_thr = detector.lowest_score if head is None else head.test_cfg.score_thr

    def test_step(self, data: dict[str, Any]) -> list[Any]:
        """Returns the samples of a batch with their detections, in pixels of the files."""
        found = self.detector.found(data, self.score_thr)
        for sample, one in zip(data["data_samples"], found, strict=True):
            arrays = {"bboxes": one.boxes, "scores": one.scores, "labels": one.labels}
            sample.pred_instances = InstanceData(
                **{name: torch.from_numpy(array) for name, array in arrays.items()}
            )
        return list(data["data_samples"])


def require_engine_for(path: Path, engine: str | None) -> None:
    """Does nothing if an engine may be asked for: for ONNX alone there are several.

    Raises:
        UsageError: it may not.
    """
    if engine is not None and path.suffix != ".onnx":
        raise UsageError(f"--engine {engine} for {path}", expected="a file that ends in .onnx")


def load_exported(
    path: Path,
    device: str = "auto",
    engine: str | None = None,
    precision: str | None = None,
    *,
    trust: bool = False,
    agnostic_nms: bool = False,
) -> ExportedDetector:
    """Returns the detector in a ``.onnx`` or ``.torchscript`` file that ``fldet export`` wrote.

    The device ``auto`` is CUDA if both torch and onnxruntime have it. ``trust`` runs TorchScript,
    which can write files. ``agnostic_nms`` needs a file of raw maps. ``engine`` runs an ONNX file,
    in a ``precision``: see ``open_engine``.

    Raises:
        CheckpointError: no such file, unreadable, not written by ``fldet export``, or TorchScript
            that is not trusted.
        UsageError: ``agnostic_nms`` of a file that has its suppression inside, or an engine that
            cannot run the file.
        UnavailableError: the engine is not installed, or has no CUDA; bfloat16 where the processor
            only emulates it.
    """
    require_engine_for(path, engine)
    require_file(path)
    if path.suffix == ".torchscript" and not trust:
        raise CheckpointError(
            f"{path} is a program: TorchScript can write files while it runs",
            expected="a file that you know the maker of, or ONNX, which cannot",
            hint="if you trust it, add --trust-checkpoint (Detector.load: trust=True)",
        )
    load: Any = _load_onnx if path.suffix == ".onnx" else _load_torchscript
    run, text, chosen = load(path, device, engine, precision)
    description = _description(read_literals(text, path), path)
    if agnostic_nms:
        if description["post_process"] == "inside":
            raise UsageError(
                f"{path} has its suppression of boxes inside, and that goes by classes",
                expected="for --agnostic-nms, a file with raw maps",
                hint="fldet export CHECKPOINT --post-process outside --out FILE",
            )
        suppress_across_classes(description["bbox_head"])
    with building(path):
        detector = ExportedDetector(run, description, chosen, precision)
    detector._unproven, detector._is_stored = path, True
    return detector


def _description(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """Returns what a file says of its model, checked; some things a file may not decide."""
    inside = values.get("post_process") == "inside"
    parts = ("data_preprocessor", "pipeline", *(() if inside else ("bbox_head",)))
    score_thr, classes = values.get("score_thr"), class_tuple(values.get("classes"), path)
    has_score_thr = isinstance(score_thr, (int, float))
    if classes is None or not has_score_thr or not set(parts) <= values.keys():
        raise CheckpointError(
            f"{path} does not say how images are prepared for it",
            expected="a file that fldet export wrote",
        )
    return {
        **checked({part: values[part] for part in parts}, path),
        "post_process": "inside" if inside else "outside",
        "precision": values.get("precision"),
        "score_thr": score_thr,
        "classes": classes,
        "thresholds": thresholds_of(values.get("thresholds"), classes, path),
    }


def as_text(description: dict[str, Any]) -> str:
    """Returns a description as the text that ``load_exported`` reads back, without running it."""
    return "\n".join(f"{name} = {value!r}" for name, value in description.items())


def _load_onnx(
    path: Path, device: str, engine: str | None, precision: str | None
) -> tuple[Run, str, torch.device]:
    on_cpu = engine == "openvino" or not has_cuda()
    chosen = select_device("cpu" if device == "auto" and on_cpu else device)
    if chosen.type == "cuda" and engine != "openvino" and not has_cuda():
        raise UnavailableError(
            f"--device {device}: this onnxruntime has no CUDA",
            hint="pip install onnxruntime-gpu, or use --device cpu",
        )
    if precision:
        require_precision(precision, chosen)
    run_arrays, text = open_engine(path, engine, str(chosen), torch.get_num_threads(), precision)

    def run(inputs: dict[str, Tensor]) -> list[Tensor]:
        outputs = run_arrays({name: value.cpu().numpy() for name, value in inputs.items()})
        return [torch.from_numpy(output) for output in outputs]

    return run, text, chosen


def _load_torchscript(
    path: Path, device: str, engine: None, precision: str | None
) -> tuple[Run, str, torch.device]:
    del engine
    if precision not in (None, "fp32"):
        raise UsageError(
            f"--precision {precision} for {path}", expected="a checkpoint, or a file in .onnx"
        )
    chosen = select_device(device)
    extra = {KEY: ""}
    try:
        load: Any = torch.jit.load
        model = load(str(path), map_location=chosen, _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        raise unreadable(path, error) from error

    def run(inputs: dict[str, Tensor]) -> list[Tensor]:
        return [output.cpu() for output in model(inputs["images"].to(chosen))]

    text: Any = extra[KEY]
    return run, text.decode() if isinstance(text, bytes) else text, chosen
