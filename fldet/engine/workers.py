"""Loader processes: their errors, and their end."""

import contextlib
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable, Iterator
from multiprocessing.queues import Queue
from typing import Any

from fldet.errors import FldetError, WorkerError
from fldet.processes import leave_signals_to_parent


@contextlib.contextmanager
def worker_errors() -> Iterator[None]:
    """Raises an expected failure of a loader process without the traceback that torch adds.

    A process that was killed, or has no shared memory for its batches, is a WorkerError.
    """
    earlier = Queue._on_queue_feeder_error  # type: ignore[attr-defined]
    Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]
    try:
        yield
    except RuntimeError as error:
        lost = _lost_worker(str(error))
        if lost is None:
            raise
        raise lost from error
    except FldetError as error:
        name = f"{type(error).__module__}.{type(error).__name__}"
        *_, text = re.split(rf"^{re.escape(name)}: ", error.message, flags=re.MULTILINE)
        if not error.message.startswith("Caught ") or text == error.message:
            raise
        raise type(error)(text.strip()) from None
    finally:
        Queue._on_queue_feeder_error = staticmethod(earlier)  # type: ignore[attr-defined]


def _begin_worker(begin: Callable[[int], None] | None, number: int) -> None:
    leave_signals_to_parent()
    if begin:
        begin(number)


def _end_worker(error: Exception, _batch: Any) -> None:
    """Ends a loader process that cannot hand over a batch.

    Python would drop the batch and go on, and the run would wait for it for ever.
    """
    os.write(2, f"a loader process cannot hand over a batch: {error}\n".encode())
    if multiprocessing.parent_process():
        os._exit(1)


def _lost_worker(text: str) -> WorkerError | None:
    """Returns what an error of torch says of a lost loader process; None for other errors."""
    killed = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) ([^.]*)", text)
    if not (killed or "shared memory" in text or text.startswith("Too many open files")):
        return None
    last = text.splitlines()[-1].split(". ")[0]
    reason = f"process {killed[1]} {killed[2].strip()}" if killed else last
    return WorkerError(
        f"a loader process was lost: {reason}",
        expected="loader processes that live as long as the run",
        hint="memory was short (see dmesg), or shared memory: /dev/shm has "
        f"{_size_of_shared_memory()} (a container gets more by --shm-size 8g), or open files "
        "(ulimit -n); lower num_workers of the train_dataloader or val_dataloader, 0 needs no "
        "process; then go on, a training with --resume",
    )


def _size_of_shared_memory() -> str:
    try:
        return f"{shutil.disk_usage('/dev/shm').total / 2**20:.0f} MiB"
    except OSError:
        return "no room"
