"""Runs ``fldet`` in processes of their own that are forked where the imports are done already.

A command computes for three seconds before it does anything: that is the import of torch and
MMDetection. A server of ``multiprocessing``, one for each process of pytest, does it once. What it
forks is a process like any other, with signals, threads, files and an exit code of its own; only
its line in the list of processes is that of the server. What a fresh start shows is tested by
processes that start afresh: what is imported when, installed packages, those of a launcher.
"""

import io
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from multiprocessing.reduction import DupFd
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess
from typing import TextIO

from schema_check import check_output

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["fldet.engine.train", "fldet.engine.test", "fldet.inference"])


class Started:
    """A command that runs; has of ``subprocess.Popen`` what the tests use."""

    def __init__(
        self,
        arguments: tuple[object, ...],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        self.args = ["fldet", *map(str, arguments)]
        self.stdout, out = _pipe(stdout, 1)
        self.stderr, err = (None, out) if stderr == STDOUT else _pipe(stderr, 2)
        environment = {**(os.environ if env is None else env)}
        self._process = _CONTEXT.Process(
            target=_run,
            args=(self.args, str(cwd or Path.cwd()), environment, DupFd(out), DupFd(err)),
        )
        self._process.start()
        for end in {out, err}:
            os.close(end)
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or the signal as a negative number; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Returns ``returncode``."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end; returns the exit code."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str | None, str | None]:
        """Waits for the end; returns what of both streams nobody has read yet."""
        with ThreadPoolExecutor(2) as pool:
            reads = [file and pool.submit(file.read) for file in (self.stdout, self.stderr)]
            try:
                texts = [read and read.result(timeout) for read in reads]
            except TooLate:
                self.kill()
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
        for file in filter(None, (self.stdout, self.stderr)):
            file.close()
        self.wait(timeout)
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        """Sends a signal while the process runs."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends the process as SIGKILL does."""
        self._process.kill()


def run(
    *arguments: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> CompletedProcess[str]:
    """Runs a command to its end; returns exit code and output."""
    process = Started(arguments, cwd=cwd, env=env, stdout=PIPE, stderr=PIPE)
    texts = process.communicate(timeout)
    check_output(process.args, texts[0] or "")
    return CompletedProcess(process.args, process.wait(), *texts)


def _pipe(kind: int | None, stream: int) -> tuple[TextIO | None, int]:
    """Returns the end to read a stream of the process from, if any, and the descriptor for it."""
    if kind == PIPE:
        ours, theirs = os.pipe()
        return open(ours, encoding="utf-8"), theirs
    return None, os.open(os.devnull, os.O_WRONLY) if kind == DEVNULL else os.dup(stream)


def _run(
    command: list[str], folder: str, environment: dict[str, str], stdout: DupFd, stderr: DupFd
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    os.chdir(folder)
    for stream, end in ((1, stdout.detach()), (2, stderr.detach())):
        os.dup2(end, stream)
    out = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", write_through=True)
    err = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", write_through=True)
    sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__ = out, err, out, err
    sys.argv = command
    from fldet.cli.main import main

    main()
