"""Starting several processes of this command on one machine."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from mmengine.config import Config

from fldet.engine.device import select_device
from fldet.engine.prepare import prepare_config
from fldet.engine.signals import noted_signals
from fldet.errors import FldetError, StoppedError, UnavailableError


def relaunch(
    cfg: Config | None,
    count: int,
    *,
    phases: tuple[str, ...],
    device: str,
    more: Sequence[str] = (),
) -> None:
    """Runs the command of this process again in ``count`` processes, by torchrun.

    What a user can get wrong is checked here first, so that it is said once and not ``count``
    times between the lines of torchrun.

    Args:
        cfg: the loaded config, None if the command has none.
        count: processes; on CUDA at most the number of devices.
        phases: what the run needs of ``train``, ``val``, ``test``.
        device: as given on the command line.
        more: arguments put behind those of the command line; the last of a kind holds.

    Raises:
        StoppedError: a signal ended the run in good order.
        FldetError: the processes failed; or as ``prepare_config`` and ``select_device``.
    """
    import torch

    chosen = select_device(device)
    if chosen.type == "cuda" and count > torch.cuda.device_count():
        raise UnavailableError(
            f"--gpus {count}: this machine has {torch.cuda.device_count()} CUDA devices",
            expected="at most one process for each device",
        )
    if cfg is not None:
        prepare_config(cfg, phases=phases)
    environment = dict(os.environ)
    threads = max(1, (os.cpu_count() or 1) // count)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    code, received = _run_group(torchrun_command([*sys.argv[1:], *more], count), environment)
    if received:
        raise StoppedError(f"the {count} processes have stopped", exit_code=128 + received)
    if code:
        raise FldetError(
            f"{count} processes ended with exit code {code}",
            expected="the first error above is the cause",
        )


def _run_group(command: list[str], environment: dict[str, str]) -> tuple[int, int]:
    """Runs torchrun; returns its exit code, and the signal that was handed on to it or 0.

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
                    process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, received.number


def torchrun_command(arguments: list[str], count: int) -> list[str]:
    """Returns the command line that runs ``fldet`` with ``arguments`` in ``count`` processes.

    Args:
        arguments: of this process; ``--gpus`` is taken out, ``--launcher pytorch`` added.
        count: number of processes.
    """
    kept, skip = [], False
    for argument in arguments:
        if skip or argument.startswith("--gpus="):
            skip = False
        elif argument == "--gpus":
            skip = True
        else:
            kept.append(argument)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, f"--nproc_per_node={count}", "-m", "fldet", *kept, "--launcher", "pytorch"]
