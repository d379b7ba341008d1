"""``fldet analyze loss-cdf``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note

if TYPE_CHECKING:
    from fldet.analysis.loss_cdf.curves import LossCdf

EXAMPLES = """\b
Examples:
  fldet analyze loss-cdf configs/paper/table1e/r101_600px.py work_dirs/r101_600px
  fldet analyze loss-cdf CONFIG CHECKPOINT --max-images 1000 --gammas 0 --gammas 2
  fldet analyze loss-cdf --from work_dirs/analysis/loss_cdf_r101_600px_val.npz
"""


@command
def loss_cdf(
    config: Annotated[
        str | None, typer.Argument(help="Config file.", metavar="CONFIG", show_default=False)
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Weights (.pth), or a work dir.", metavar="CHECKPOINT", show_default=False
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    gammas: Annotated[
        list[float] | None,
        typer.Option(
            min=0.0,
            metavar="GAMMA",
            help="A curve for each; repeat it.  [default: 0, 0.5, 1, 2]",
            show_default=False,
        ),
    ] = None,
    num_negatives: Annotated[int, typer.Option(min=1, help="Negatives to sample.")] = 10_000_000,
    num_positives: Annotated[int, typer.Option(min=1, help="Positives to sample.")] = 100_000,
    max_images: Annotated[
        int | None, typer.Option(min=1, help="Only N images, at random.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of images and samples.")] = 0,
    window: Annotated[
        str,
        typer.Option(
            help="A negative: anchor-class, a background anchor with any class; or anchor, with "
            "its highest-scoring class only."
        ),
    ] = "anchor-class",
    from_file: Annotated[
        Path | None,
        typer.Option("--from", help="Redraw this sample, without a model.", show_default=False),
    ] = None,
    out_dir: Annotated[Path, typer.Option(help="Where to write.")] = Path("work_dirs/analysis"),
    cfg_options: options.CfgOptions = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Draw Figure 4: loss of easy and hard examples.

    It shows how gamma spreads the loss of a trained model over them.
    """
    note("fldet analyze loss-cdf")
    from fldet.analysis.loss_cdf.curves import GAMMAS, compute, plot, read_sample, write_json

    if from_file is None:
        from fldet.analysis.loss_cdf.logits import collect_logits
        from fldet.config.load import load_config

        cfg = load_config(_required(config, "CONFIG"), cfg_options or ())
        weights = Path(_required(checkpoint, "CHECKPOINT"))
        stem = out_dir / f"loss_cdf_{Path(cfg.filename).stem}_{split}"
        sample_file = collect_logits(
            cfg,
            weights,
            _new(stem.with_name(f"{stem.name}.npz")),
            split=split,
            window=window,
            num_negatives=num_negatives,
            num_positives=num_positives,
            max_images=max_images,
            seed=seed,
            device=device,
        )
    else:
        _refuse(config, from_file)
        sample_file, stem = from_file, out_dir / from_file.stem
    result = compute(read_sample(sample_file), gammas or GAMMAS)
    files = [
        sample_file,
        write_json(result, stem.with_name(f"{stem.name}.json")),
        *plot(result, stem),
    ]
    value = {"shares": result.shares(), "procedure": result.procedure, "files": files}
    Output("analyze loss-cdf", as_json=json).result(value, text=lambda: describe(result, files))


def describe(result: "LossCdf", files: list[Path]) -> str:
    """Returns the shares as text, then the paths of what was written."""
    return "\n".join([str(result), "", *(f"{path.suffix[1:]:4}  {path}" for path in files)])


def _required(value: "str | Path | None", name: str) -> str:
    from fldet.errors import UsageError

    if value is None:
        raise UsageError(f"no {name}", expected="CONFIG and CHECKPOINT, or --from FILE.npz")
    return str(value)


def _refuse(config: str | None, from_file: Path) -> None:
    from fldet.errors import UsageError

    if config is not None:
        raise UsageError(
            f"both CONFIG {config} and --from {from_file}",
            expected="one of them: --from redraws what is in the file",
        )


def _new(path: Path) -> Path:
    """Returns the path of a file that does not exist: a sample may have cost hours."""
    from fldet.errors import UsageError

    if path.exists():
        raise UsageError(
            f"{path} exists already",
            expected="a new file",
            hint=f"redraw it with --from {path}, or name another --out-dir",
        )
    return path
