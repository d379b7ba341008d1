"""``python -m fldet.engine.agent``: torchrun, which names the process that failed and why.

What ``--gpus N`` starts, and what stops its processes in good order should that command be killed.
torchrun itself prints its own traceback and a table of all processes, those it has ended itself
among them.
"""

import logging
import signal
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import parse_args, run

from fldet.engine.signals import ASKED_TO_END
from fldet.processes import stop_with_parent
from fldet.streams import safe_streams


def main(arguments: list[str]) -> int:
    """Runs torchrun with its arguments; returns the exit code of the process that failed first."""
    options = parse_args(arguments)  # type: ignore[no-untyped-call]
    # a process that is killed before the last attempt is named by torchrun's log alone
    logging.disable(logging.WARNING if options.max_restarts else logging.ERROR)
    try:
        run(options)  # type: ignore[no-untyped-call]
    except SignalException as stopped:
        return 128 + stopped.sigval
    except ChildFailedError as failed:
        rank, first = failed.get_first_failure()
        print(failure_text(rank, first), file=sys.stderr)
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    return 0


def failure_text(rank: int, failure: ProcessFailure) -> str:
    """Returns what the process has said of its end, or which signal ended it."""
    if isinstance(failure.message, dict):
        return f"process {rank}: {failure.message['extraInfo']['py_callstack']}"
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        return (
            f"Error: process {rank} (pid {failure.pid}) was ended by {name}\n"
            "Hint: SIGKILL is often the system's, short of memory; --resume goes on"
        )
    if failure.exitcode - 128 in ASKED_TO_END:  # the first process has said what it saved
        return "the processes have stopped"
    return f"Error: process {rank} (pid {failure.pid}) ended with exit code {failure.exitcode}"


if __name__ == "__main__":
    stop_with_parent()
    with safe_streams():
        raise SystemExit(main(sys.argv[1:]))
