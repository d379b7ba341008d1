"""Starting several processes of this command on one machine."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from fldet.config.prepare import prepare_config
from fldet.devices import select_device
from fldet.engine.signals import noted_signals
from fldet.errors import StoppedError, UnavailableError, UsageError
from fldet.processes import core_count

# An iteration may take long, and so may the writing of a checkpoint; torchrun's own limit is 30.
_SECONDS_TO_SAVE = 600


def relaunch(
    cfg: Config | None,
    count: int,
    *,
    phases: tuple[str, ...],
    device: str,
    max_restarts: int = 0,
    more: Sequence[str] = (),
) -> None:
    """Runs the command of this process again in ``count`` processes, by torchrun.

    What a user can get wrong is checked here first, so that it is said once and not ``count``
    times between the lines of torchrun: the config, if the command has one, and the devices.
    The arguments ``more`` are put behind those of the command line; the last of a kind holds.

    A signal that ended the run in good order is raised as StoppedError. Where one of the processes
    has failed, which it says itself, this one ends with its exit code.
    """
    import torch

    chosen = select_device(device)
    if chosen.type == "cuda" and count > torch.cuda.device_count():
        raise UnavailableError(
            f"--gpus {count}: this machine has {torch.cuda.device_count()} CUDA devices",
            expected="at most one process for each device",
        )
    if chosen.type == "mps" and count > 1:
        raise UsageError(f"--gpus {count} --device mps", expected="one process: there is one GPU")
    if cfg is not None:
        prepare_config(cfg, phases=phases)
    environment = dict(os.environ)
    if not {"", os.getcwd()} & {*sys.path}:  # nor may "python -m" look there for modules
        environment.setdefault("PYTHONSAFEPATH", "1")
    threads = max(1, core_count() // count)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.setdefault(name, str(threads))
    environment.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(_SECONDS_TO_SAVE))
    command = torchrun_command([*sys.argv[1:], *more], count, max_restarts)
    code, received = _run_group(command, environment)
    if received and code == 128 + received:
        raise StoppedError(f"the {count} processes have stopped", exit_code=code)
    if code:
        raise SystemExit(code)


def _run_group(command: list[str], environment: dict[str, str]) -> tuple[int, int]:
    """Runs torchrun; returns its exit code as a shell has it, and the signal handed on to it or 0.

    It gets a session of its own: a Ctrl-C reaches this process alone, which asks torchrun to end
    the others in good order. A second Ctrl-C kills all of them.
    """
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    with noted_signals() as received:
        try:
            asked = False
            while process.poll() is None:
                if received.number and not asked:
                    asked = True
                    process.send_signal(received.number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
        except BaseException:
            _kill_with_children(process.pid)
            raise
    code = process.returncode
    return code if code >= 0 else 128 - code, received.number


def _kill_with_children(pid: int) -> None:
    """Kills a process, its group and, on Linux, those of its children, which have their own."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    groups = [pid, *map(int, children.read_text().split())] if children.exists() else [pid]
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def torchrun_command(arguments: list[str], count: int, max_restarts: int = 0) -> list[str]:
    """Returns the command line that runs ``fldet`` in ``count`` processes.

    From the ``arguments`` of this process ``--gpus`` and ``--max-restarts`` are taken out.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--gpus")
    parser.add_argument("--max-restarts")
    _, kept = parser.parse_known_args(arguments)
    torchrun = [sys.executable, "-m", "fldet.engine.agent", "--standalone"]
    torchrun += [f"--nproc_per_node={count}", f"--max_restarts={max_restarts}"]
    return [*torchrun, "-m", "fldet", *kept, "--launcher", "pytorch"]
