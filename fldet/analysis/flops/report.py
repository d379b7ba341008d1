"""Parameters, FLOPs and activations of each part of a detector, as text and figure."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fldet.analysis.flops.count import NetworkCosts
from fldet.pictures.figure import figure, save

COUNTED = "convolutions and matrix products, 2 FLOPs for a multiply-add"

_MIB = 2**20
_FLOAT32 = 4  # bytes
_PARTS = ("backbone", "neck", "classification subnet", "box subnet", "other")
_STEM = ("conv1", "bn1", "norm1", "stem", "patch_embed")
_SHARED = "shared"  # parameters that every level uses
_MEMBER = re.compile(r"bbox_head\.[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\.(\d+)(?=\.|$)")


@dataclass(frozen=True)
class Cost:
    """What a stage of the backbone or a level of another part costs, or several together."""

    name: str  # ``stem``, C2 to C5, P3 to P7; ``shared`` for parameters that all levels use
    parameters: int  # numbers that are learned or frozen
    flops: int  # two for a multiply-add
    activations: int  # numbers in the outputs of its convolutions
    activations_mib: float  # the same in float32


@dataclass(frozen=True)
class Part:
    """A part of the network: its costs together, and those of its stages or levels."""

    total: Cost
    pieces: tuple[Cost, ...]


@dataclass(frozen=True)
class FlopCount:
    """What a detector costs for one image."""

    shape: tuple[int, int]  # (height, width) that the network sees, padded, in pixels
    counted: str  # which operations are counted, and how
    total: Cost  # of the whole network
    parts: tuple[Part, ...]  # those with any cost, in the order of the data


# --- compute -------------------------------------------------------------------------------------


def costs_by_part(costs: NetworkCosts) -> FlopCount:
    """Returns the costs of a network by part and level."""
    levels = [f"P{round(math.log2(stride))}" for stride in costs.strides]
    alone = _of_one_level(costs, len(levels))
    # (part, piece) -> parameters, FLOPs, activations
    table: dict[tuple[str, str], list[int]] = {}
    for name, count in costs.parameters.items():
        _row(table, _place(name, None, levels, alone))[0] += count
    for call in costs.calls:
        row = _row(table, _place(call.name, call.call, levels, alone))
        row[1] += call.flops
        row[2] += call.outputs
    parts = tuple(
        Part(_sum(part, pieces), pieces)
        for part in _PARTS
        if (pieces := tuple(_cost(key[1], row) for key, row in table.items() if key[0] == part))
    )
    total = _sum("total", [part.total for part in parts])
    return FlopCount(costs.shape, COUNTED, total, parts)


def _row(table: dict[tuple[str, str], list[int]], place: tuple[str, str]) -> list[int]:
    return table.setdefault(place, [0, 0, 0])


def _of_one_level(costs: NetworkCosts, levels: int) -> set[str]:
    """Returns the members of lists in the head that one level alone has, as ``bbox_head.convs.2``.

    A layer that all levels share is called once for each of them; one that is called once in a
    head of several levels is of the level that its number in the list says.
    """
    times = Counter(call.name for call in costs.calls)
    once = [name for name, count in times.items() if count == 1 and levels > 1]
    return {found[0] for name in once if (found := _MEMBER.match(name)) and int(found[1]) < levels}


def _place(name: str, call: int | None, levels: Sequence[str], alone: set[str]) -> tuple[str, str]:
    """Returns the part and the piece that a layer's call or a parameter (no call) belongs to."""
    part, _, rest = name.partition(".")
    if part == "backbone":
        return part, _stage(rest)
    if part == "neck":  # lateral_convs.0, fpn_convs.3: the number is that of the level
        found = re.search(r"\.(\d+)(\.|$)", rest)
        known = found and int(found[1]) < len(levels)
        return part, levels[int(found[1])] if found and known else _SHARED
    if part != "bbox_head":
        return "other", _SHARED
    # Shared layers of the head are called for one level after the other.
    piece = _SHARED if call is None or call >= len(levels) else levels[call]
    if (member := _MEMBER.match(name)) and member[0] in alone:
        piece = levels[int(member[1])]
    if re.search(r"reg|box", rest):
        return "box subnet", piece
    return ("classification subnet" if "cls" in rest else "other"), piece


def _stage(rest: str) -> str:
    first = rest.split(".")[0]
    layer = re.fullmatch(r"layer(\d+)", first)
    if layer:
        return f"C{int(layer[1]) + 1}"
    return "stem" if first in _STEM else first


def _cost(name: str, row: Sequence[int]) -> Cost:
    parameters, flops, activations = row
    return Cost(name, parameters, flops, activations, activations * _FLOAT32 / _MIB)


def _sum(name: str, costs: Sequence[Cost]) -> Cost:
    columns = ("parameters", "flops", "activations")
    return _cost(name, [sum(getattr(cost, column) for cost in costs) for column in columns])


# --- plot ----------------------------------------------------------------------------------------


def plot_costs(count: FlopCount, stem: Path, *, title: str) -> list[Path]:
    """Draws FLOPs, activations and parameters, a bar for each part; returns PNG and SVG."""
    height, width = count.shape
    with figure(15, 9) as drawn:
        drawn.suptitle(f"{title}: one image of {height}x{width}")
        names = dict.fromkeys(piece.name for part in count.parts for piece in part.pieces)
        colors = _colors(list(names))
        panels = drawn.subplots(1, 3)
        for axes, (attribute, unit, label) in zip(panels, _QUANTITIES, strict=True):
            _bars(axes, count, attribute, unit, colors)
            total = getattr(count.total, attribute) / unit
            axes.set_title(f"{label}: {total:.1f}")
        _legend(drawn, colors)
        return save(drawn, stem)


_QUANTITIES = (
    ("flops", 1e9, "GFLOP"),
    ("activations_mib", 1.0, "activations [MiB]"),
    ("parameters", 1e6, "parameters [million]"),
)


def _colors(names: Sequence[str]) -> dict[str, Any]:
    """Returns a colour for each piece: a stage and the level of its stride have the same."""
    from matplotlib import colormaps

    steps = [name[1:] if re.fullmatch(r"[CP]\d+", name) else name for name in names]
    order = sorted(dict.fromkeys(steps), key=lambda step: (step.isdigit(), step.zfill(3)))
    order = [step for step in order if step != _SHARED]
    ramp = colormaps["viridis"]
    of = {step: ramp(index / max(1, len(order) - 1)) for index, step in enumerate(order)}
    return {
        name: of.get(step, (0.75, 0.75, 0.75, 1.0)) for name, step in zip(names, steps, strict=True)
    }


def _bars(axes: Any, count: FlopCount, attribute: str, unit: float, colors: Any) -> None:
    """Draws a stack for each part, its sum on top, and the names of the pieces that have room."""
    sums = [getattr(part.total, attribute) / unit for part in count.parts]
    for place, part in enumerate(count.parts):
        bottom = 0.0
        for piece in part.pieces:
            value = getattr(piece, attribute) / unit
            color = colors[piece.name]
            axes.bar(place, value, 0.85, bottom=bottom, color=color, edgecolor="white", lw=0.8)
            if value > 0.045 * max(sums):
                text = f"{piece.name} {value:.0f}" if value >= 10 else f"{piece.name} {value:.1f}"
                ink = "white" if sum(color[:3]) < 1.35 else "black"
                style = {"ha": "center", "va": "center", "fontsize": 13, "color": ink}
                axes.text(place, bottom + value / 2, text.replace(f"{_SHARED} ", ""), **style)
            bottom += value
        axes.text(place, bottom, f"{bottom:.1f}", ha="center", va="bottom", weight="bold")
    names = [part.total.name.replace("classification", "class.") for part in count.parts]
    axes.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])
    axes.grid(visible=False, axis="x")
    axes.set_axisbelow(True)
    axes.set_ylim(0, 1.08 * max(sums))


def _legend(drawn: Any, colors: dict[str, Any]) -> None:
    from matplotlib.patches import Patch

    merged: dict[Any, list[str]] = {}
    for name, color in colors.items():
        label = "shared by the levels" if name == _SHARED else name
        merged.setdefault(color, []).append(label)
    handles = [Patch(color=color, label=", ".join(names)) for color, names in merged.items()]
    drawn.legend(handles=handles, loc="outside lower center", ncols=len(handles))
