"""The training losses on the validation images."""

import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from fldet.errors import ConfigError
from fldet.registry import HOOKS

log = logging.getLogger("fldet")


@HOOKS.register_module()
class ValLossHook(Hook):
    """Adds the losses to the figures of each validation: ``val/loss``, ``val/loss_cls``, ...

    A second pass over each batch, in evaluation mode and without gradients. With a head of fldet
    each loss is that of all images as one batch: the sum of their losses over the sum of the
    numbers they are divided by, whatever the batch size and the number of processes. Three things
    do depend on them: a batch without an assigned anchor is divided by 1; a miner may choose among
    all images of a batch; ``MovingAverageCount`` divides each batch by the average of the training,
    so batches should be as large as there. With another head it is the mean over the images of
    each batch's loss. ``val/loss`` is the sum of the others.

    Args:
        boxes_in_file: the loader gives boxes in pixels of the image file, as it does where
            ``LoadAnnotations`` stands after ``Resize``; they are brought to those of the network's
            input. False: they are there already.
    """

    priority = "NORMAL"  # before those that log the figures

    def __init__(self, boxes_in_file: bool = True) -> None:
        self.boxes_in_file = boxes_in_file
        self._sums: dict[str, float] = defaultdict(float)
        self._weights: dict[str, float] = defaultdict(float)

    def before_val_epoch(self, runner: Any) -> None:
        """Starts from zero, if the processes have as many batches each.

        Else a normalizer that counts over them would wait for ever.
        """
        self._sums.clear()
        self._weights.clear()
        batches = all_gather_object(len(runner.val_dataloader))
        if len(set(batches)) > 1:
            raise ConfigError(
                f"val_loss: the processes have {batches} batches to validate",
                expected="as many each: val_dataloader.sampler with round_up=True",
            )

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any, **_: Any) -> None:
        """Adds the losses of a batch."""
        losses, weights = self.losses(runner.model, data_batch)
        for name, weight in weights.items():
            self._sums[name] += losses[name] * weight
            self._weights[name] += weight

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Gives the means to the log, and to the figures of which the best is kept."""
        parts = all_gather_object((dict(self._sums), dict(self._weights)))
        means = {
            f"val/{name}": sum(sums[name] for sums, _ in parts) / sum(w[name] for _, w in parts)
            for name in self._sums
        }
        means = {"val/loss": sum(v for name, v in means.items() if "loss" in name[4:]), **means}
        hub = runner.message_hub
        for name, value in means.items():
            # Beside "val/coco/AP": the first "val/" is taken off again in the log. The log shows
            # the mean of the last losses, which must not be those of earlier validations.
            hub.log_scalars.pop(f"val/{name}", None)
            hub.update_scalar(f"val/{name}", value)
        if metrics is not None:
            metrics.update(means)
        if is_main_process():
            log.info("%s", "  ".join(f"{name} {value:.4f}" for name, value in means.items()))

    @torch.no_grad()
    def losses(
        self, model: Any, data_batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Returns the losses of a batch, with their sum as ``loss``, and the weight of each.

        The weight is what the head divided by, else the number of images; a sum has none. The model
        is in evaluation mode, the batch as the validation loader gives it; it is not changed.
        """
        model = model.module if is_model_wrapper(model) else model
        data = model.data_preprocessor(data_batch, False)  # copies the samples
        if self.boxes_in_file:
            for sample in data["data_samples"]:
                bring_boxes_to_input(sample)
        head = getattr(model, "bbox_head", None)
        with (
            _outputs_of(getattr(head, "normalizer", None)) as factors,
            _outputs_of(getattr(head, "selected_normalizer", None)) as of_selected,
        ):
            _, found = model.parse_losses(model(**data, mode="loss"))
        values = {name: float(value) for name, value in found.items()}
        weight = float(factors[0]) if factors else float(len(data["data_samples"]))
        weights = {name: weight for name in values if name != "loss" or len(values) == 1}
        if of_selected:  # a miner's choice, of which the boxes' loss knows nothing
            weights["loss_cls"] = float(of_selected[0])
        return values, weights


@contextmanager
def _outputs_of(module: nn.Module | None) -> Iterator[list[Any]]:
    """Is a list to which a module adds what it returns; it stays empty without a module."""
    outputs: list[Any] = []
    if module is None:
        yield outputs
        return
    handle = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


def bring_boxes_to_input(sample: Any) -> None:
    """Replaces boxes in pixels of the file by those in pixels of the resized image, in place.

    The sample has ``scale_factor`` (w, h), ``img_shape`` (h, w) of the resized image, and
    ``gt_instances`` and ``ignored_instances`` with ``bboxes`` (N, 4) xyxy.
    """
    height, width = sample.img_shape[:2]
    for instances in (sample.gt_instances, sample.get("ignored_instances")):
        if instances is None or "bboxes" not in instances:
            continue
        boxes = instances.bboxes
        scaled = boxes * boxes.new_tensor([*sample.scale_factor] * 2)
        limit = boxes.new_tensor([width, height] * 2)
        # As in training: Resize cuts boxes off at the edge of the image.
        instances.bboxes = torch.minimum(scaled.clamp(min=0), limit)
