"""A batch that stopped a run, once more."""

from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MessageHub

from fldet.checkpoints.files import read_checkpoint
from fldet.checkpoints.model import model_with_weights
from fldet.config.prepare import prepare_config
from fldet.devices import select_device
from fldet.engine.nonfinite import examine, finding_text, load_batch
from fldet.errors import CheckpointError, NonFiniteError
from fldet.models.fast.bfloat16 import avoid_narrow_maps


def replay(cfg: Config, path: Path, *, device: str = "auto") -> str:
    """Returns the report about a saved batch whose loss is finite this time, else raises it.

    ``cfg`` is of the run that saved it, ``path`` its ``nonfinite_iter_N.pth``. On a CPU the result
    is always the same.
    """
    chosen = select_device(device)
    content = read_checkpoint(path)
    if not {"moment", "inputs", "samples", "state_dict"} <= content.keys():
        raise CheckpointError(
            f"{path} holds no batch", expected="a file nonfinite_iter_N.pth of a work dir"
        )
    prepared = prepare_config(cfg, phases=("train",))
    model = model_with_weights(prepared, content, path).to(chosen).train()
    batch, moment = load_batch(content)
    # for what changes with the iterations, as the size of the batches may
    MessageHub.get_current_instance().update_info_dict(
        {
            "seed": moment.seed,
            "iter": moment.iteration - 1,
            "max_iters": prepared.train_cfg.max_iters,
        }
    )
    if moment.autocast and chosen.type == "cpu":
        avoid_narrow_maps(model)
    finding = examine(model, batch, moment)
    report = finding_text(finding, moment, batch)
    if finding.finite:
        return report
    raise NonFiniteError(report, expected="what the run met: this is the same batch")
