"""What a command says, and where: the result on stdout, everything else on stderr."""

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec

import typer

from fldet.errors import FldetError, StoppedError, WorkerError, explained_file_errors

P = ParamSpec("P")

INTERRUPTED = 130


class Output:
    """The result of one command in one of three forms.

    Args:
        command: its name, as in ``fldet test``.
        as_json: print one JSON object.
        quiet: print one essential value.
    """

    def __init__(self, command: str, *, as_json: bool = False, quiet: bool = False) -> None:
        self.command = command
        self.as_json = as_json
        self.quiet = quiet

    def result(self, value: Any, *, text: str | Callable[[], str], essential: Any = "") -> None:
        """Prints a result.

        Args:
            value: what ``to_jsonable`` turns into the JSON object.
            text: for a person, or what makes it.
            essential: the one value that ``--quiet`` prints.
        """
        if not is_first_process():
            return
        if self.as_json:
            from fldet.results import to_json

            self._print(to_json(self.command, value))
        elif self.quiet:
            self._print(str(essential))
        else:
            self._print(text() if callable(text) else text)

    @staticmethod
    def _print(text: str) -> None:
        with explained_file_errors("stdout"):
            print(text, file=sys.__stdout__, flush=True)


def table(
    header: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    *,
    align: Literal["left", "right"] = "right",
) -> str:
    """Returns rows as a plain text table; the first column is left aligned, others as asked."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    ruler = tuple("-" * width for width in widths)
    return "\n".join(
        "  ".join(
            text.ljust(width) if i == 0 or align == "left" else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, ruler, *rows]
    )


def markdown_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Returns rows as a Markdown table."""
    ruler = ("---",) * len(header)
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ruler, *rows])


def is_first_process() -> bool:
    """Returns False in all but the first process of a distributed run."""
    return os.environ.get("RANK", "0") == "0"


def note(text: str) -> None:
    """Prints a line for the person at the terminal, on stderr, in the first process only."""
    if is_first_process():
        print(text, file=sys.stderr, flush=True)


def command(body: Callable[P, None]) -> Callable[P, None]:
    """Runs the body of a command: its prints go to stderr, its expected errors become exit codes.

    Libraries print on stdout when it pleases them; only ``Output`` may reach the real one.
    """

    @functools.wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from fldet.cli.log import set_up_logging

        set_up_logging()
        try:
            with contextlib.redirect_stdout(sys.stderr), explained_file_errors():
                body(*args, **kwargs)
        except StoppedError as stopped:
            note(str(stopped))
            raise typer.Exit(stopped.exit_code) from None
        except FldetError as error:
            if isinstance(error, WorkerError):
                # that the other loader processes end too is no news: torch would raise it at exit
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            print(f"Error: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None

    return run
