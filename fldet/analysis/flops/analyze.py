"""``fldet analyze flops`` as a function."""

from pathlib import Path

from mmengine.config import Config

from fldet.analysis.flops.count import count_flops
from fldet.analysis.flops.report import FlopCount, costs_by_part, plot_costs
from fldet.results import ANALYSES, Analysis


def analyze_flops(
    cfg: Config, *, shape: tuple[int, int] = (800, 1333), out_dir: Path = ANALYSES
) -> Analysis[FlopCount]:
    """Counts and draws what each part of a model costs.

    Args:
        cfg: as ``load_config`` returned it.
        shape: (height, width) of the image in pixels, before padding.
        out_dir: where to draw.

    Raises:
        ConfigError: a wrong key or value, or a model that is not a one-stage detector.
        DataError: malformed annotations; the file need not exist.
    """
    count = costs_by_part(count_flops(cfg, shape))
    name = Path(cfg.filename or "config").stem
    stem = out_dir / f"flops_{name}_{shape[0]}x{shape[1]}"
    return Analysis(count, plot_costs(count, stem, title=name))
