"""A moving average of the weights, which validations, tests and predictions use."""

from typing import Any

from mmengine.hooks import EMAHook as MMEngineEMAHook

from fldet.registry import HOOKS


@HOOKS.register_module()
class EMAHook(MMEngineEMAHook):
    """MMEngine's hook, with an average that is short at first and counts optimizer steps.

    After step t the average moves by the share max(``momentum``, ``gamma`` / (``gamma`` + t))
    towards the weights: with ten, it covers about the last tenth of the steps so far. Buffers, as
    the statistics of batch norms, are those of the trained model. A validation uses the average. A
    checkpoint has the average as ``state_dict``, the trained weights in ``ema_state_dict``.

    Args:
        momentum: the smallest share, in (0, 1).
        gamma: larger forgets faster, >= 1.
    """

    def __init__(self, momentum: float = 0.0002, gamma: int = 10) -> None:
        kind = "MomentumAnnealingEMA"
        super().__init__(kind, strict_load=True, momentum=momentum, gamma=gamma)
        self._averaging_is_shown = False

    def before_train(self, runner: Any) -> None:
        """Begins with the weights as they are now: the copy was made before they were set."""
        super().before_train(runner)
        if not self.ema_model.steps:
            self.ema_model.module.load_state_dict(self.src_model.state_dict())

    def after_train_iter(self, runner: Any, batch_idx: int, *, outputs: Any, **_: Any) -> None:
        """Moves the average after each step of the optimizer."""
        if not outputs:  # a batch that was passed over; a step that it ended waits for the next
            return
        if runner.optim_wrapper.should_update():
            self.ema_model.update_parameters(self.src_model)
            return
        pairs = zip(self.ema_model.module.buffers(), self.src_model.buffers(), strict=True)
        for kept, present in pairs:
            kept.copy_(present)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Adds both sets of weights, in a validation too, where they have changed places."""
        state = self.ema_model.state_dict()
        checkpoint["ema_state_dict"] = {name: value.cpu() for name, value in state.items()}
        if not self._averaging_is_shown:
            self._swap_ema_state_dict(checkpoint)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Goes on with the average of a resumed run; a new one begins at its first step."""
        if runner._resume and "ema_state_dict" in checkpoint:
            super().after_load_checkpoint(runner, checkpoint)

    def _swap_ema_parameters(self) -> None:
        super()._swap_ema_parameters()
        self._averaging_is_shown = not self._averaging_is_shown
