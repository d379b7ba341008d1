"""``fldet config``."""

import typer

from fldet.cli import options
from fldet.cli.output import Output, command

app = typer.Typer(
    help="Look at configs.", rich_markup_mode=None, no_args_is_help=True, add_completion=False
)

SHOW_EXAMPLES = """\b
Examples:
  fldet config show configs/retinanet/r101_fpn_1.5x.py
  fldet config show configs/retinanet/r50_fpn_1x.py --cfg-options model.backbone.depth=101
"""


@app.callback()
def config() -> None:
    """Look at configs."""


@app.command(epilog=SHOW_EXAMPLES)
@command
def show(
    config: options.Config,
    cfg_options: options.CfgOptions = None,
    json: options.Json = False,
) -> None:
    """Print a config with its bases and overrides merged."""
    from fldet.config import format_config, load_config, to_plain

    cfg = load_config(config, cfg_options or ())
    Output("config show", as_json=json).result(to_plain(cfg), text=format_config(cfg))
