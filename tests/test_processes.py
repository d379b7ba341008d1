import os

import pytest

from fldet.errors import UsageError
from fldet.processes import adopt_launcher, first_host, process_count, process_rank

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
