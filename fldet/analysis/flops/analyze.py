"""``fldet analyze flops`` as a function."""

from pathlib import Path

from mmengine.config import Config

from fldet.analysis.flops.count import count_flops
from fldet.analysis.flops.report import FlopCount, costs_by_part, plot_costs
from fldet.checkpoints.stored_config import find_pipeline
from fldet.config.sizes import require_size, warped_size
from fldet.results import ANALYSES, Analysis

_OF_THE_PAPER = (800, 1333)


def analyze_flops(
    cfg: Config, *, shape: tuple[int, int] | None = None, out_dir: Path = ANALYSES
) -> Analysis[FlopCount]:
    """Counts and draws what each part of a model costs.

    Args:
        cfg: as ``load_config`` returned it.
        shape: (height, width) of the image in pixels, before padding; None takes that to which the
            config warps all images, 800 x 1333 if it warps none.
        out_dir: where to draw.

    Raises:
        ConfigError: a wrong key or value, a model that is not a one-stage detector, or images are
            warped to another size than ``shape``.
        UsageError: ``shape`` is too small for the network.
        DataError: malformed annotations; the file need not exist.
    """
    pipeline = find_pipeline(cfg) or ()
    shape = shape or warped_size(pipeline) or _OF_THE_PAPER
    require_size(pipeline, shape)
    count = costs_by_part(count_flops(cfg, shape))
    name = Path(cfg.filename or "config").stem
    stem = out_dir / f"flops_{name}_{shape[0]}x{shape[1]}"
    return Analysis(count, plot_costs(count, stem, title=name))
