"""``fldet analyze loss-cdf`` as functions: Figure 4."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from fldet.analysis.loss_cdf.curves import (
    GAMMAS,
    LossCdf,
    loss_cdf_of,
    plot_loss_cdf,
    read_sample,
    write_json,
)
from fldet.analysis.loss_cdf.logits import SampleOptions, collect_logits
from fldet.errors import UsageError
from fldet.results import ANALYSES, Analysis

_ALL = SampleOptions()


def analyze_loss_cdf(
    cfg: Config,
    checkpoint: Path,
    sampling: SampleOptions = _ALL,
    *,
    gammas: Sequence[float] = GAMMAS,
    out_dir: Path = ANALYSES,
    device: str = "auto",
) -> Analysis[LossCdf]:
    """Draws how the loss of a trained model is spread over easy and hard examples.

    The sample of its scores is kept, so that the figure can be drawn again without the model.

    Args:
        cfg: as ``load_config`` returned it.
        checkpoint: the weights, or a work dir.
        sampling: which examples.
        gammas: a curve for each.
        out_dir: where to write.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        UsageError: there is a sample in ``out_dir`` already; or as ``collect_logits``.
        CheckpointError, ConfigError, DataError, UnavailableError: as ``collect_logits``.
    """
    sample = out_dir / f"loss_cdf_{Path(cfg.filename).stem}_{sampling.split}.npz"
    if sample.exists():  # it may have cost hours
        raise UsageError(
            f"{sample} exists already",
            expected="a new file",
            hint=f"redraw it with --from {sample}, or name another --out-dir",
        )
    collect_logits(cfg, checkpoint, sample, sampling, device=device)
    return redraw_loss_cdf(sample, gammas=gammas, out_dir=out_dir)


def redraw_loss_cdf(
    sample: Path, *, gammas: Sequence[float] = GAMMAS, out_dir: Path = ANALYSES
) -> Analysis[LossCdf]:
    """Draws the figure of a sample that an earlier call kept, without a model.

    Args:
        sample: the ``.npz``.
        gammas: a curve for each.
        out_dir: where to write.

    Raises:
        DataError: there is no such file, it is another kind of file, or a group is empty.
        UsageError: a gamma is negative or not finite, or there is none.
    """
    curves = loss_cdf_of(read_sample(sample), gammas)
    written = write_json(curves, out_dir / f"{sample.stem}.json")
    return Analysis(curves, [sample, written, *plot_loss_cdf(curves, out_dir / sample.stem)])
