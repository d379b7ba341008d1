"""``fldet analyze loss-curves``."""

from fldet.cli import options
from fldet.cli.output import Output, command, note
from fldet.cli.printed import LossCurvesAnalyzed
from fldet.results import ANALYSES

EXAMPLES = """
  fldet analyze loss-curves
  fldet analyze loss-curves --out-dir pictures --json
"""


@command
def loss_curves(
    out_dir: options.OutDir = ANALYSES,
    json: options.Json = False,
) -> None:
    """Draw Figures 1, 5 and 6: the losses and their derivatives."""
    note("fldet analyze loss-curves")
    from fldet.analysis.loss_curves import analyze_loss_curves

    done = analyze_loss_curves(out_dir=out_dir)
    Output("analyze loss-curves", as_json=json).result(
        LossCurvesAnalyzed(done.result.landmarks, done.files),
        text=lambda: "\n".join([str(done.result), "", *(f"picture  {one}" for one in done.files)]),
    )
