"""``fldet config``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.group import command_group, epilog
from fldet.cli.output import Output, command
from fldet.errors import shorten

if TYPE_CHECKING:
    from fldet.config.diff import Difference
    from fldet.config.origin import Origin, Place, Step

app = command_group("Look at configs.")

SHOW_EXAMPLES = """
  fldet config show configs/retinanet/r101_fpn_1.5x.py
  fldet config show configs/retinanet/r50_fpn_1x.py --cfg-options model.backbone.depth=101
  fldet config show my_config.py --resolved
"""
DIFF_EXAMPLES = """
  fldet config diff configs/retinanet/r50_fpn_1x.py configs/retinanet/r101_fpn_1x.py
  fldet config diff configs/retinanet/r50_fpn_1x.py work_dirs/mine/r50_fpn_1x.py
"""
WHY_EXAMPLES = """
  fldet config why configs/retinanet/r101_fpn_1x.py model.backbone.depth
  fldet config why configs/retinanet/r50_fpn_1x.py train_dataloader.dataset.pipeline.2.scale
  fldet config why configs/retinanet/r50_fpn_1x.py model --cfg-options model.backbone.depth=18
"""

A = Annotated[str, typer.Argument(help="Config file.", metavar="A")]
B = Annotated[str, typer.Argument(help="Another config file.", metavar="B")]
Key = Annotated[
    str, typer.Argument(help="Dotted key; a number is an index of a list.", metavar="KEY")
]


@app.command(epilog=epilog(SHOW_EXAMPLES))
@command
def show(
    config: options.Config,
    cfg_options: options.CfgOptions = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print what fldet train would run; needs the data.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Print a config with its bases and overrides merged."""
    from fldet.config.load import format_config, load_config, to_plain

    cfg = load_config(config, cfg_options or ())
    if resolved:
        from fldet.config.resolve import TrainOptions, resolve_training
        from fldet.devices import select_device

        cfg = resolve_training(cfg, select_device(), TrainOptions())
    Output("config show", as_json=json).result(to_plain(cfg), text=format_config(cfg))


@app.command(epilog=epilog(DIFF_EXAMPLES))
@command
def diff(a: A, b: B, json: options.Json = False) -> None:
    """Print what differs between two configs, bases merged."""
    from fldet.config.diff import diff_configs
    from fldet.config.load import load_config, plain

    found = diff_configs(load_config(a), load_config(b))
    lines = [f"- A: {a}", f"+ B: {b}", *map(_diff_line, found)]
    text = "\n".join(lines) if found else "no difference"
    Output("config diff", as_json=json).result(plain([*map(asdict, found)]), text=text)


def _diff_line(item: Difference) -> str:
    if item.in_a and item.in_b:
        return f"  {item.key}: {item.a!r} -> {item.b!r}"
    if item.in_a:
        return f"- {item.key}: {item.a!r} (only in A)"
    return f"+ {item.key}: {item.b!r} (only in B)"


@app.command(epilog=epilog(WHY_EXAMPLES))
@command
def why(
    config: options.Config,
    key: Key,
    cfg_options: options.CfgOptions = None,
    json: options.Json = False,
) -> None:
    """Print which statement set a value of a config, and what it overrode."""
    from fldet.config.load import plain
    from fldet.config.origin import origin_of

    origin = origin_of(config, key, cfg_options or ())
    text = "\n".join(_why_lines(origin))
    Output("config why", as_json=json).result(plain(asdict(origin)), text=text)


def _why_lines(origin: Origin) -> Iterator[str]:
    from pprint import pformat

    value = pformat(origin.value, width=100, sort_dicts=False)
    yield f"{origin.key} ={' ' if len(value.splitlines()) == 1 else chr(10)}{value}"
    for index, step in enumerate(origin.steps):
        yield f"  {_where(step.place)}: {_what(step, is_first=index == 0)}"
        if step.place.text:
            yield f"      {step.place.text}"
        for place in step.via:
            yield f"      through {_where(place)}: {place.text}"


def _what(step: Step, *, is_first: bool) -> str:
    if step.action == "part":
        return f"gives {', '.join(step.value)}"
    if step.action == "deleted":
        return "drops what was set before"
    verb = "computed" if step.action == "computed" else "set"
    return f"{verb} to {shorten(step.value)}{'' if is_first else ', overridden'}"


def _where(place: Place) -> str:
    """Returns ``file:line``, relative to the current directory for a file below it."""
    relative = os.path.relpath(place.file)
    file = place.file if relative.startswith(os.pardir) or place.line is None else relative
    return file if place.line is None else f"{file}:{place.line}"
