"""A loss that is not finite stops the run before it reaches the weights."""

import logging
import math
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce_params, get_rank
from mmengine.hooks import Hook
from torch import Tensor, nn

from fldet.engine.nonfinite import Moment, examine, finding_text, image_names, save_batch
from fldet.engine.process_group import Agreement, unwrapped
from fldet.errors import NonFiniteError, PeerError
from fldet.models.fast.buffers import changing_modules, copy_buffers, restore_buffers
from fldet.registry import HOOKS

log = logging.getLogger("fldet")

# In the checkpoint: how many batches were passed over.
SKIPPED = "nonfinite_skipped"


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Looks at the loss of every iteration between the forward and the backward pass.

    One number is read for it. On a GPU that waits for the forward pass, as the head has done a few
    kernels before, where it picks the anchors with a box. Everything else happens only when the
    loss is not finite: the batch is run once more with every layer watched, then saved.

    With gradient accumulation a batch that is passed over counts as one of its step, with gradients
    of zero, so that steps stay between the same iterations.

    When the run is stopped, weights and optimizer are as before the batch.

    Args:
        skip: so many batches are passed over before.
        command: how to see the batch again; the name of the file is put at its end.
    """

    priority = "HIGHEST"  # before MMEngine takes the losses into its log

    def __init__(self, skip: int = 0, command: str = "") -> None:
        self.skip = skip
        self.command = command
        self._passed_over = False
        self._modules: list[nn.Module] | None = None

    def before_train(self, runner: Any) -> None:
        """Puts itself between the loss and the step, whatever the optimizer wrapper is."""
        self._runner = runner
        self._agreement = Agreement(runner.cfg)
        self._update = runner.optim_wrapper.update_params
        runner.optim_wrapper.update_params = self.update_if_finite

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Keeps the batch, and the few buffers that the forward pass may change."""
        self._batch = data_batch
        self._passed_over = False
        if self._modules is None:
            self._modules = changing_modules(self._model)
        self._buffers = copy_buffers(self._modules)

    def after_train_iter(self, runner: Any, batch_idx: int, *, outputs: Any, **_: Any) -> None:
        """Keeps the losses of a batch that was passed over out of the log."""
        if self._passed_over:
            outputs.clear()

    def after_train(self, runner: Any) -> None:
        """Reports how many batches were passed over."""
        count = runner.message_hub.get_info(SKIPPED, 0)
        if count:
            log.warning("%d batches were passed over, their loss was not finite", count)

    def update_if_finite(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Does the backward pass and the step of a finite loss."""
        is_wrong = not math.isfinite(loss.item())
        if not self._agreement.highest(int(is_wrong)):
            self._update(loss, *args, **kwargs)
            return
        restore_buffers(self._modules or [], self._buffers)
        skipped = self._runner.message_hub.get_info(SKIPPED, 0)
        if skipped < self.skip:
            self._pass_over(skipped + 1, is_wrong)
        else:
            self._stop(is_wrong)

    @property
    def _model(self) -> nn.Module:
        return unwrapped(self._runner.model)

    def _pass_over(self, count: int, is_wrong: bool) -> None:
        self._runner.message_hub.update_info(SKIPPED, count)
        self._passed_over = True
        if is_wrong:  # at this level other processes than the first speak too
            log.log(
                logging.ERROR if get_rank() else logging.WARNING,
                "iter %d: the loss is not finite; batch passed over (%d of at most %d)\n%s",
                *(self._runner.iter + 1, count, self.skip, image_names(self._batch)),
            )
        wrapper = self._runner.optim_wrapper
        wrapper._inner_count += 1
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        if gradients and wrapper.should_update():
            all_reduce_params(gradients, op="mean")  # as this batch's backward pass would have done
            wrapper.step()
            wrapper.zero_grad()

    def _stop(self, is_wrong: bool) -> None:
        """Raises, after a second pass in all processes: its sums may go over all of them."""
        moment = self._moment()
        finding = examine(self._model, self._batch, moment)
        restore_buffers(self._modules or [], self._buffers)
        if not is_wrong:
            raise PeerError(
                f"the loss of another process is not finite in iteration {moment.iteration}"
            )
        rank = f"_rank_{moment.rank}" if moment.rank else ""
        path = Path(self._runner.work_dir, f"nonfinite_iter_{moment.iteration}{rank}.pth")
        save_batch(path, self._model, self._batch, moment)
        raise NonFiniteError(
            finding_text(finding, moment, self._batch),
            expected="a finite loss; often the learning rate is too high, or a label is wrong",
            hint=f"see it again with: {self.command} {path}",
        )

    def _moment(self) -> Moment:
        runner = self._runner
        device = next(runner.model.parameters()).device.type
        with runner.optim_wrapper.optim_context(runner.model):
            mixed = torch.is_autocast_enabled(device)
            dtype = str(torch.get_autocast_dtype(device)).removeprefix("torch.") if mixed else ""
        rate = next(iter(runner.optim_wrapper.get_lr().values()))[0]
        return Moment(runner.iter + 1, runner.seed, get_rank(), float(rate), dtype)
