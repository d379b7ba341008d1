"""What the commands of ``fldet benchmark`` say about times."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fldet.text import table

if TYPE_CHECKING:
    from fldet.benchmark.results import (
        EngineRow,
        EngineTable,
        SpeedCell,
        SpeedResult,
        SpeedsSideBySide,
        SpeedTable,
    )


MOST_LOST = 0.5  # points of AP that count as little


def describe_speed(result: "SpeedResult", written: Iterable[Path] = ()) -> str:
    """Returns the times, what they were measured on, and which files were written."""
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
    peak = result.peak_memory_mib
    lines += [
        *_share_of_peak(result),
        f"peak memory {'unknown' if math.isnan(peak) else f'{peak:.0f} MiB'}: {result.memory}",
    ]
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
    return "\n".join([*lines, *(f"written  {path}" for path in written)])


def describe_table(result: "SpeedTable", written: Iterable[Path] = ()) -> str:
    """Returns a row for each depth, the paper's times in brackets, the conditions, the files."""
    scales = list(dict.fromkeys(cell.scale for cell in result.cells))
    rows = []
    for depth in dict.fromkeys(cell.depth for cell in result.cells):
        cells = {cell.scale: cell for cell in result.cells if cell.depth == depth}
        rows.append((f"ResNet-{depth}", *(cell_text(cells[scale]) for scale in scales)))
    lines = [table(("median ms", *(f"{scale} px" for scale in scales)), rows)]
    if any(cell.paper_ms for cell in result.cells):
        lines.append("in brackets: Table 1e of the paper, on an Nvidia M40")
    lines += [f"R{c.depth}, {c.scale} px failed: {c.error}" for c in result.cells if c.error]
    done = [cell.result for cell in result.cells if cell.result]
    if done:
        first = done[0]
        shares = [one.peak_share for one in done]
        rates = _peak_rates(first)
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
    return "\n".join([*lines, *(f"written  {path}" for path in written)])


def describe_side_by_side(result: "SpeedsSideBySide", written: Iterable[Path] = ()) -> str:
    """Returns a row for each config, the conditions, and the files."""
    done = [row.result for row in result.rows if row.result]
    header = ("config", "image", "parameters", "GFLOP", "median ms", "GFLOP/s", "of peak", "MiB")
    lines = [table(header, [_row(row.name, row.result) for row in result.rows if row.result])]
    lines += [f"{row.name} failed: {row.error}" for row in result.rows if row.error]
    if done:
        first = done[0]
        way = "optimized copies" if first.optimized else "the models as they are"
        lines += [
            f"{first.num_images} times one random image of the shape to which each resizes 480 x "
            f"640, after {first.warmup} for warming up; weights: {first.weights}",
            f"timed: {first.timed}",
            f"{first.device}, {way} in {first.precision}{', compiled' * first.compiled}, "
            f"{first.threads} CPU threads; the machine's measured peak: {_peak_rates(first)}",
            ", ".join(f"{name} {value}" for name, value in first.machine.items()),
        ]
    return "\n".join([*lines, *(f"written  {path}" for path in written)])


def describe_engines(result: "EngineTable", written: Iterable[Path] = ()) -> str:
    """Returns a row for each engine and precision, the fastest, the conditions, and the files."""
    done = [row for row in result.rows if not row.error]
    lines = []
    if done:
        first = f"{done[0].engine} {done[0].precision}"
        header = ("engine", "precision", "median ms", "90th", f"x {first}", "AP", "points lost")
        lines.append(table(header, [_engine_row(row) for row in done]))
    lines += [
        f"{row.engine} {row.precision} failed: {row.error}" for row in result.rows if row.error
    ]
    best, exact = result.fastest(), result.fastest(MOST_LOST)
    for row, said in ((exact, f"fastest within {MOST_LOST:g} AP"), (best, "fastest of all")):
        if row and not (row is best is exact and said == "fastest of all"):
            lines.append(f"{said}: {row.engine} {row.precision}, as in {_use(row)}")
    if done:
        height, width = result.image_shape
        lines += [
            f"{result.num_images} images, one at a time, of {height}x{width} (most frequent size); "
            f"AP of {result.tested_images} images; weights: {result.checkpoint}",
            f"timed: {result.timed}",
            f"CPU, {result.threads} threads; "
            + ", ".join(f"{name} {value}" for name, value in result.machine.items()),
        ]
    return "\n".join([*lines, *(f"written  {path}" for path in written)])


def _engine_row(row: "EngineRow") -> tuple[str, ...]:
    times = f"{row.median_ms:.1f}", f"{row.p90_ms:.1f}", f"{row.speedup:.2f}"
    return (row.engine, row.precision, *times, f"{100 * row.ap:.2f}", f"{row.lost:+.2f}")


def _use(row: "EngineRow") -> str:
    """Returns the commands by which a model runs so."""
    words = ["--precision bf16"] if row.precision == "bf16" else []
    if row.engine in ("torch", "mmdet"):
        return " ".join(["fldet predict CHECKPOINT IMAGES", *words])
    words = [f"--engine {row.engine}", *words]
    export = "fldet export CHECKPOINT --out model.onnx" + " --int8" * (row.precision == "int8")
    return f"{export}; fldet predict model.onnx IMAGES {' '.join(words)}"


def _row(name: str, result: "SpeedResult") -> tuple[str, ...]:
    known = not math.isnan(result.gflop)
    return (
        name,
        "x".join(map(str, result.image_shape)),
        f"{result.parameters / 1e6:.2f} M",
        f"{result.gflop:.1f}" if known else "-",
        f"{result.median_ms:.1f}",
        f"{1000 * result.gflop / result.median_ms:.0f}" if known else "-",
        f"{result.peak_share:.0%}" if known else "-",
        "-" if math.isnan(result.peak_memory_mib) else f"{result.peak_memory_mib:.0f}",
    )


def cell_text(cell: "SpeedCell") -> str:
    """Returns the milliseconds of a cell, the paper's in brackets."""
    paper = f" ({cell.paper_ms:g})" if cell.paper_ms else ""
    return f"{cell.result.median_ms:.1f}{paper}" if cell.result else f"failed{paper}"


def _share_of_peak(result: "SpeedResult") -> list[str]:
    if not result.machine_gflops:
        return []
    rates = _peak_rates(result)
    if math.isnan(result.gflop):
        return [f"operations not counted; the machine's measured peak: {rates}"]
    return [
        f"{result.gflop:.4g} GFLOP in the median time: {result.peak_share:.0%} of the machine's "
        f"measured peak ({rates})"
    ]


def _peak_rates(result: "SpeedResult") -> str:
    kind = result.precision.split()[0]
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in result.machine_gflops.items())
    return f"GFLOP/s in {kind}: {rates}"
