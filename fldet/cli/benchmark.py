"""``fldet benchmark``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note
from fldet.text import table

if TYPE_CHECKING:
    from fldet.benchmark.results import SpeedCell, SpeedResult, SpeedTable

EXAMPLES = """\b
Examples:
  fldet benchmark configs/retinanet/r50_fpn_1x.py --shape 800x1333
  fldet benchmark configs/shapes/retinanet_r18_shapes.py work_dirs/retinanet_r18_shapes
  fldet benchmark CONFIG CHECKPOINT --precision bf16 --against mmdet
  fldet benchmark --depths 50 101 --scales 400 500 600 700 800 --out table1e.json
  fldet benchmark CONFIG --train --shape 480x640 --batch-size 2 --amp --against mmdet
"""


@command
def benchmark(
    config: Annotated[
        str | None,
        typer.Argument(
            help="Config file; with --depths or --scales alone the RetinaNets of each depth.",
            metavar="CONFIG",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Weights or a work dir; random without.", metavar="CHECKPOINT", show_default=False
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, help="Images, or training steps, timed after the warm-up.")
    ] = 50,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="Time random images of this size instead of those of the data.",
            show_default=False,
        ),
    ] = None,
    depths: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N ...",
            help="A table by depth of the ResNet and --scales.  [default: 50 101]",
            show_default=False,
        ),
    ] = None,
    scales: Annotated[
        list[int] | None,
        typer.Option(
            metavar="PIXELS ...",
            help="A table by --depths and shorter side of the image; random weights and images.  "
            "[default: 400 500 600 700 800]",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="fp32|bf16",
            help="Time a faster copy, batch norms folded, in this precision.",
            show_default=False,
        ),
    ] = None,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Time a faster copy under torch.compile, which takes tens of seconds before the "
            "clock starts, for each size of image.",
        ),
    ] = False,
    cuda_graph: Annotated[
        bool,
        typer.Option(
            "--cuda-graph",
            help="Time a faster copy whose network is replayed as CUDA graphs; needs a GPU and "
            "images of one size (--shape, --scales).",
        ),
    ] = False,
    train: Annotated[
        bool, typer.Option("--train", help="Time the training step, random weights.")
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images of a training step, instead of the config's.", show_default=False
        ),
    ] = None,
    amp: Annotated[
        bool, typer.Option("--amp", help="Time the training step as fldet train --amp does it.")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="mmdet",
            help="Time MMDetection's own code in float32 too, in turns.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="New JSON file; a table is written as it comes.", show_default=False),
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option(help="Draw into this folder, JSON beside.", show_default=False)
    ] = None,
    cfg_options: options.CfgOptions = None,
    device: options.Device = "auto",
    trust_checkpoint: options.TrustCheckpoint = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the milliseconds per image of a config's model, or of its training step."""
    in_table = bool(depths or scales)
    _check(
        in_table=in_table,
        config=config,
        train=train,
        out=out,
        given={
            "CHECKPOINT": checkpoint,
            "--shape": shape,
            "--precision": precision,
            "--compile": compile,
            "--cuda-graph": cuda_graph,
            "--batch-size": batch_size,
            "--amp": amp,
            "--train": train,
        },
    )
    note(f"fldet benchmark {config or 'depths and scales'}: loading torch and MMDetection")
    overrides = cfg_options or []
    size = parse_shape(shape) if shape else None
    as_copy: Any = {"precision": precision, "compile": compile, "cuda_graph": cuda_graph}
    result: SpeedResult | SpeedTable
    name = "speed_" + (Path(config).stem if config else "table1e") + "_train" * train
    if in_table:
        from fldet.benchmark.table import DEPTHS, SCALES, benchmark_table

        kind = "benchmark --scales"
        name += "_table" if config else ""
        wanted = (depths or DEPTHS, scales or SCALES)
        result = benchmark_table(
            config,
            depths=wanted[0],
            scales=wanted[1],
            cfg_options=overrides,
            on_cell=lambda so_far: _cell_done(kind, so_far, len(wanted[0]) * len(wanted[1]), out),
            num_images=images,
            device=device,
            against=against,
            **as_copy,
        )
    elif train:
        from fldet.benchmark.training import benchmark_training
        from fldet.config.load import load_config

        kind = "benchmark --train"
        result = benchmark_training(
            load_config(config or "", overrides),
            steps=images,
            batch_size=batch_size,
            shape=size,
            device=device,
            amp=amp,
            against=against,
        )
    else:
        from fldet.benchmark.predict import benchmark as run
        from fldet.config.load import load_config

        kind = "benchmark"
        result = run(
            load_config(config or "", overrides),
            checkpoint,
            num_images=images,
            shape=size,
            device=device,
            against=against,
            trust_checkpoint=trust_checkpoint,
            **as_copy,
        )
    written = _write(kind, result, out, out_dir / name if out_dir else None)
    Output(kind, as_json=json, quiet=quiet).result(
        result,
        text=lambda: "\n".join([_describe(result), *(f"written  {path}" for path in written)]),
        essential=_essential(result),
    )
    if in_table and any(cell.error for cell in result.cells):  # type: ignore[union-attr]
        note("cells have failed; exit code 1")
        raise typer.Exit(1)


def parse_shape(text: str) -> tuple[int, int]:
    """Returns (height, width) of a text like ``800x1333``.

    Raises:
        UsageError: another kind of text.
    """
    from fldet.errors import UsageError

    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise UsageError(f"--shape {text!r} is not a size", expected="HEIGHTxWIDTH, as in 800x1333")
    return int(height), int(width)


def describe(result: "SpeedResult") -> str:
    """Returns the times and what they were measured on."""
    height, width = result.image_shape
    what = f"training step of {result.batch_size} images" if result.training else "image"
    lines = [
        f"median {result.median_ms:.1f} ms per {what}, 90th percentile {result.p90_ms:.1f} ms, "
        f"99th {result.p99_ms:.1f} ms; {result.images_per_second:.2f} images per second",
    ]
    if result.against:
        lines.append(
            f"x{result.against.speedup:.2f} as fast as {result.against.name} in float32 "
            f"(median {result.against.median_ms:.1f} ms; median of the ratios in turns)"
        )
    if result.stages_ms:
        stages = ", ".join(f"{name} {value:.1f}" for name, value in result.stages_ms.items())
        second = "" if result.training else ", from a second run"
        lines.append(f"stages in ms{second}: {stages}")
    lines += [*_work(result), f"peak memory {_mib(result.peak_memory_mib)}: {result.memory}"]
    way = "an optimized copy" if result.optimized else "the model as it is"
    how = ", compiled" * result.compiled + ", as CUDA graphs" * result.cuda_graph
    timed = f"{result.num_images} {'steps' if result.training else 'images, one at a time'}"
    lines += [
        f"{timed}, of {height}x{width} (most frequent size), after {result.warmup} for warming up; "
        f"weights: {result.weights}",
        f"timed: {result.timed}",
        f"{result.device}, {way} in {result.precision}{how}, {result.threads} CPU threads",
        ", ".join(f"{name} {value}" for name, value in result.machine.items()),
    ]
    return "\n".join(lines)


def describe_table(result: "SpeedTable") -> str:
    """Returns a row for each depth, the paper's times in brackets, and the conditions."""
    scales = list(dict.fromkeys(cell.scale for cell in result.cells))
    rows = []
    for depth in dict.fromkeys(cell.depth for cell in result.cells):
        cells = {cell.scale: cell for cell in result.cells if cell.depth == depth}
        rows.append((f"ResNet-{depth}", *(_cell_text(cells[scale]) for scale in scales)))
    lines = [table(("median ms", *(f"{scale} px" for scale in scales)), rows)]
    if any(cell.paper_ms for cell in result.cells):
        lines.append("in brackets: Table 1e of the paper, on an Nvidia M40")
    lines += [f"R{c.depth}, {c.scale} px failed: {c.error}" for c in result.cells if c.error]
    done = [cell.result for cell in result.cells if cell.result]
    if done:
        first = done[0]
        shares = [one.peak_share for one in done]
        rates = _rates(first)
        lines += [
            f"{min(shares):.0%} to {max(shares):.0%} of the machine's measured peak ({rates})",
            f"{first.num_images} times one random image of the scale and 4/3 of it, after "
            f"{first.warmup} for warming up; weights: {first.weights}; configs: {result.config}",
            f"timed: {first.timed}",
            f"{first.device}, {first.precision}{', an optimized copy' * first.optimized}"
            f"{', compiled' * first.compiled}{', as CUDA graphs' * first.cuda_graph}, "
            f"{first.threads} CPU threads",
            ", ".join(f"{name} {value}" for name, value in first.machine.items()),
        ]
        if first.against:
            speedups = [one.against.speedup for one in done if one.against]
            lines.insert(
                1,
                f"x{min(speedups):.2f} to x{max(speedups):.2f} as fast as {first.against.name} in "
                "float32",
            )
    return "\n".join(lines)


def _check(
    *, in_table: bool, config: str | None, train: bool, out: Path | None, given: dict[str, Any]
) -> None:
    """Checks that the options fit each other.

    Raises:
        UsageError: they do not, or ``out`` exists.
    """
    from fldet.errors import UsageError

    def refuse(names: tuple[str, ...], where: str, hint: str) -> None:
        for name in names:
            if given[name]:
                raise UsageError(f"{name} does not go {where}", hint=hint)

    if in_table:
        refuse(
            ("CHECKPOINT", "--shape", "--train", "--batch-size", "--amp"),
            "with --depths and --scales",
            "time one config: fldet benchmark CONFIG",
        )
    elif config is None:
        raise UsageError(
            "CONFIG is missing",
            expected="a config file, or --depths and --scales",
            hint="fldet benchmark configs/retinanet/r50_fpn_1x.py --shape 800x1333",
        )
    elif train:
        refuse(
            ("CHECKPOINT", "--precision", "--compile", "--cuda-graph"),
            "with --train",
            "what training does is in the config, or --amp",
        )
    else:
        refuse(("--batch-size", "--amp"), "without --train", "add --train, or --precision bf16")
    if out is not None and out.exists():
        raise UsageError(f"{out} exists already", expected="a new file", hint="--out another.json")


def _cell_done(kind: str, so_far: "SpeedTable", all_cells: int, out: Path | None) -> None:
    cell = so_far.cells[-1]
    done = f"{len(so_far.cells)} of {all_cells}"
    note(f"{done}: ResNet-{cell.depth}, {cell.scale} px: {cell.error or _cell_text(cell) + ' ms'}")
    _write(kind, so_far, out, None)


def _write(
    kind: str, result: "SpeedResult | SpeedTable", out: Path | None, stem: Path | None
) -> list[Path]:
    """Writes JSON and, with a stem, pictures; returns the paths."""
    from fldet.benchmark.results import SpeedTable
    from fldet.files import write_atomically
    from fldet.results import to_json

    beside = stem.with_name(f"{stem.name}.json") if stem else None
    written = [write_atomically(path, to_json(kind, result)) for path in (out, beside) if path]
    if stem:
        from fldet.benchmark.pictures import plot_stages, plot_table

        if isinstance(result, SpeedTable):
            if any(cell.result for cell in result.cells):
                written += plot_table(result, stem)
        elif result.stages_ms:
            written += plot_stages(
                result, stem, title=stem.name.removeprefix("speed_").removesuffix("_train")
            )
    return written


def _describe(result: "SpeedResult | SpeedTable") -> str:
    from fldet.benchmark.results import SpeedTable

    return describe_table(result) if isinstance(result, SpeedTable) else describe(result)


def _essential(result: "SpeedResult | SpeedTable") -> str:
    from fldet.benchmark.results import SpeedTable

    if isinstance(result, SpeedTable):
        times = (f"{cell.result.median_ms:.1f}" if cell.result else "-" for cell in result.cells)
        return " ".join(times)
    return f"{result.median_ms:.1f}"


def _cell_text(cell: "SpeedCell") -> str:
    paper = f" ({cell.paper_ms:g})" if cell.paper_ms else ""
    return f"{cell.result.median_ms:.1f}{paper}" if cell.result else f"failed{paper}"


def _work(result: "SpeedResult") -> list[str]:
    import math

    if not result.machine_gflops:
        return []
    rates = _rates(result)
    if math.isnan(result.gflop):
        return [f"operations not counted; the machine's measured peak: {rates}"]
    return [
        f"{result.gflop:.4g} GFLOP in the median time: {result.peak_share:.0%} of the machine's "
        f"measured peak ({rates})"
    ]


def _rates(result: "SpeedResult") -> str:
    kind = result.precision.split()[0]
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in result.machine_gflops.items())
    return f"GFLOP/s in {kind}: {rates}"


def _mib(value: float) -> str:
    return "unknown" if value != value else f"{value:.0f} MiB"
