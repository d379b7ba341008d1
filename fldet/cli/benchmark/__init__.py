"""``fldet benchmark``: one module for each command."""

from typing import Any

from typer.core import TyperGroup

from fldet.cli.benchmark import engines, predict, table, train
from fldet.cli.group import command_group


def in_present_words(words: list[str]) -> list[str]:
    """Returns the words after ``fldet benchmark`` with the name of a command before them.

    Once there was one command, of which ``--train``, and ``--depths`` or ``--scales``, made the
    other two; ``--trust-checkpoint`` it took everywhere. ``table --engines`` is ``engines``.
    """
    options = {word.partition("=")[0] for word in words}
    if words[:1] == ["table"] and options & {"--engines", "--precisions"}:
        return ["engines", *words[1:]]
    if not words or words[0] in ("predict", "train", "table", "engines", "--help"):
        return words
    if options & {"--depths", "--scales"}:
        return ["table", *(word for word in words if word != "--trust-checkpoint")]
    if "--train" in options:
        return ["train", *(word for word in words if word not in ("--train", "--trust-checkpoint"))]
    return ["predict", *words]


class BenchmarkGroup(TyperGroup):
    """Commands of which the first one's name may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses arguments, those of earlier versions too."""
        return super().parse_args(ctx, in_present_words(args))


app = command_group(
    "Measure milliseconds: of an image, of a training step, by depth and scale, by engine."
    "\n\nfldet benchmark CONFIG is short for fldet benchmark predict CONFIG.",
    *(predict.predict, train.train, table.table, engines.engines),
    cls=BenchmarkGroup,
)
