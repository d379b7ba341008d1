"""What a command says, and where: the result on stdout, everything else on stderr."""

import contextlib
import functools
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec

import typer

from fldet.errors import (
    FldetError,
    PeerError,
    StoppedError,
    UnavailableError,
    WorkerError,
    explained_file_errors,
)
from fldet.moved import moved
from fldet.processes import adopt_launcher, process_count, process_rank, restart_count
from fldet.progress import StderrHandler
from fldet.text import printable

__getattr__ = moved(__name__, {"fldet.text": ("table",)})

P = ParamSpec("P")

TOLERANCE_MISSED, INTERRUPTED = 3, 130  # exit codes
SECONDS_FOR_THE_CAUSE = 10.0


class Output:
    """The result of a command (``analyze flops``) as text, one JSON object or one value."""

    def __init__(self, command: str, *, as_json: bool = False, quiet: bool = False) -> None:
        self.command = command
        self.as_json = as_json
        self.quiet = quiet

    def result(self, value: Any, *, text: str | Callable[[], str], essential: Any = "") -> None:
        """Prints what ``to_jsonable`` makes of a value, its text, or the essential of it."""
        if not is_first_process():
            return
        if self.as_json:
            from fldet.results import to_json

            self._print(to_json(self.command, value).replace("\x7f", r"\u007f"))
        elif self.quiet:
            self._print(str(essential))
        else:
            self._print(text() if callable(text) else text)

    @staticmethod
    def _print(text: str) -> None:
        with explained_file_errors("stdout"):
            print(printable(text), file=sys.__stdout__, flush=True)


def is_first_process() -> bool:
    """Returns False in all but the first process of a distributed run."""
    return process_rank() == 0


def note(text: str) -> None:
    """Prints a line for the person at the terminal, on stderr, in the first process only."""
    if is_first_process():
        print(printable(text), file=sys.stderr, flush=True)


@contextlib.contextmanager
def loading(command: str, what: str = "torch and MMDetection") -> Iterator[None]:
    """Says that imports take seconds now, and leaves what they make out of garbage collections.

    MMEngine asks for a collection at each data set: without this a start takes a third longer.
    """
    note(f"fldet {command}: loading {what}")
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if not gc.get_freeze_count():
            gc.freeze()


def command(body: Callable[P, None]) -> Callable[P, None]:
    """Runs the body of a command: its prints go to stderr, its expected errors become exit codes.

    Libraries print on stdout when it pleases them; only ``Output`` may reach the real one.
    """

    @functools.wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            if "launcher" in kwargs:
                kwargs["launcher"] = adopt_launcher(str(kwargs["launcher"]))

            set_up_logging()
            with contextlib.redirect_stdout(sys.stderr), explained_file_errors():
                body(*args, **kwargs)
        except StoppedError as stopped:
            note(str(stopped))
            raise typer.Exit(stopped.exit_code) from None
        except FldetError as error:
            if isinstance(error, WorkerError):
                # that the other loader processes end too is no news: torch would raise it at exit
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _report(error, f"Error: {error}")
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except (Exception, SystemExit) as error:
            from fldet.engine.doctor import culprit, reason

            if package := culprit(error):
                what = f"{package} cannot be imported: {reason(error)}"
                broken = UnavailableError(what, hint="fldet doctor says how to mend it")
                _report(broken, f"Error: {broken}")
                raise typer.Exit(broken.exit_code) from None
            if "RANK" not in os.environ or isinstance(error, SystemExit):
                raise
            import traceback

            _report(error, traceback.format_exc().rstrip())
            raise typer.Exit(1) from None

    return run


def _report(error: Exception, text: str) -> None:
    """Prints why this process fails, or hands it to torchrun, which prints the first one last.

    What only follows from the failure of another process waits until torchrun has ended this one.
    So does, for a moment, what all processes run into alike: then the first says it.
    """
    if process_count() > 1:
        time.sleep(SECONDS_FOR_THE_CAUSE if isinstance(error, PeerError) else process_rank() > 0)
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    done, most = restart_count()
    if file and done == most:
        import json

        details = {"py_callstack": text, "timestamp": str(int(time.time()))}
        message = {"message": str(error), "extraInfo": details}
        Path(file).write_text(json.dumps({"message": message}), encoding="utf-8")
    else:
        who = f"process {process_rank()} of {process_count()}: " if process_count() > 1 else ""
        print(printable(who + text), file=sys.stderr)


def set_up_logging() -> None:
    """Has what fldet logs printed on stderr, in the first process alone unless it is an error."""
    log = logging.getLogger("fldet")
    log.setLevel(logging.INFO if is_first_process() else logging.ERROR)
    log.propagate = False
    if not any(isinstance(handler, StderrHandler) for handler in log.handlers):
        log.addHandler(StderrHandler())
