import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fldet.errors import UsageError
from fldet.processes import (
    adopt_launcher,
    end_with_parent,
    first_host,
    leave_signals_to_parent,
    process_count,
    process_rank,
)

OURS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "16",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "4242",
    "SLURM_STEP_ID": "0",
    "SLURM_NODELIST": "gpu[07-08]",
    "SLURM_NNODES": "2",
}
MPI = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}


@pytest.fixture
def variables(monkeypatch):
    """Sets variables, with none of a launcher before; what is added is gone at the end."""
    for name in list(os.environ):
        if name in OURS or name.startswith(("SLURM_", "OMPI_", "TORCHELASTIC_")):
            monkeypatch.delenv(name)
    for name in OURS:  # to be put back as they were: absent
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return lambda values: [monkeypatch.setenv(*item) for item in values.items()]


@pytest.mark.parametrize(
    ("launcher", "given", "expected"),
    [
        ("slurm", SLURM, ("3", "16", "1", "gpu07", "19242")),
        ("slurm", {**SLURM, "SLURM_NNODES": "1"}, ("3", "16", "1", "127.0.0.1", "19242")),
        # a step of fewer tasks than the job
        ("slurm", {**SLURM, "SLURM_STEP_NUM_TASKS": "4"}, ("3", "4", "1", "gpu07", "19242")),
        ("slurm", {**SLURM, "SLURM_STEP_ID": "1"}, ("3", "16", "1", "gpu07", "27161")),
        ("slurm", {**SLURM, "SLURM_STEP_ID": "²"}, ("3", "16", "1", "gpu07", "19242")),
        ("slurm", {**SLURM, "SLURM_STEP_ID": "9" * 5000}, ("3", "16", "1", "gpu07", "19242")),
        ("slurm", {**SLURM, "MASTER_ADDR": "h", "MASTER_PORT": "9"}, ("3", "16", "1", "h", "9")),
        ("mpi", MPI, ("1", "4", "1", "127.0.0.1", "29500")),
    ],
)
def test_the_variables_of_a_launcher_become_torchs(variables, launcher, given, expected):
    variables(given)
    assert adopt_launcher(launcher) == "pytorch"
    assert tuple(os.environ[name] for name in OURS) == expected
    assert (process_rank(), process_count()) == (int(expected[0]), int(expected[1]))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
            "pytorch",
        ),
        (SLURM, "none"),  # one process in the shell of a job has these variables too
        ({}, "none"),
    ],
)
def test_auto_notices_torchrun_alone(variables, given, expected):
    variables(given)
    assert adopt_launcher("auto") == expected


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ("torch", "unknown launcher 'torch'"),
        ("pytorch", "--launcher pytorch needs the variable RANK"),
        ("slurm", "--launcher slurm needs the variable SLURM_PROCID"),
        ("mpi", "--launcher mpi needs the variable OMPI_COMM_WORLD_RANK"),
    ],
)
def test_launchers_that_cannot_work_are_named(variables, launcher, message):
    with pytest.raises(UsageError, match=message):
        adopt_launcher(launcher)


def test_mpi_on_several_machines_needs_an_address(variables):
    variables({**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"})
    with pytest.raises(UsageError, match="needs MASTER_ADDR"):
        adopt_launcher("mpi")


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node1", "node1"),
        ("a,b", "a"),
        ("gpu[03-05,9],login", "gpu03"),
        ("gpu[9,12]-ib,x", "gpu9-ib"),
        ("rack[1-2]node[07-08]", "rack1node07"),
    ],
)
def test_the_first_host_of_a_list(nodes, host):
    assert first_host(nodes) == host


def work(begin, ready):
    """What a process does that another one has started: nothing, for long."""
    begin()
    ready.set()
    time.sleep(60)


@pytest.fixture
def started(monkeypatch):
    """Starts a process that begins with a function; it is killed at the end."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1])  # where it finds this module
    context = multiprocessing.get_context("spawn")
    processes = []

    def start(begin):
        ready = context.Event()
        processes.append(context.Process(target=work, args=(begin, ready), daemon=True))
        processes[0].start()
        assert ready.wait(60)
        return processes[0]

    yield start
    processes[0].kill()
    processes[0].join()


only_where_senders_are_known = pytest.mark.skipif(
    not hasattr(signal, "sigtimedwait"), reason="the system does not say who sent a signal"
)


@only_where_senders_are_known
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP"])
def test_a_signal_of_somebody_else_is_left_to_the_parent(started, name):
    process = started(leave_signals_to_parent)
    for _ in range(3):
        subprocess.run(["kill", f"-{name}", str(process.pid)], check=True)
    process.join(2)
    assert process.is_alive()
    process.terminate()
    process.join(10)
    assert process.exitcode == 128 + signal.SIGTERM


PARENT = """
import multiprocessing, time
from fldet import processes
from tests.test_processes import work
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    child = context.Process(target=work, args=(processes.{begin}, ready))
    child.start()
    ready.wait()
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks into /proc")
@pytest.mark.parametrize("begin", [end_with_parent, leave_signals_to_parent])
def test_a_process_ends_soon_after_its_parent(tmp_path, monkeypatch, begin):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(begin=begin.__name__))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]))
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    for _ in range(100):
        if not os.path.exists(f"/proc/{child}"):
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("it is still there after ten seconds")
