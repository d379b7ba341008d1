import pytest
import torch

from fldet.engine.device import process_group, select_device, world_size
from fldet.engine.launch import torchrun_command
from fldet.errors import UnavailableError, UsageError

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


def test_the_cpu_can_be_chosen_everywhere():
    from mmengine.device import get_device

    assert select_device("cpu") == torch.device("cpu")
    assert get_device() == "cpu"


@NO_CUDA
def test_auto_is_the_cpu_without_cuda():
    assert select_device("auto") == torch.device("cpu")


@NO_CUDA
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_missing_cuda_is_named(name):
    with pytest.raises(UnavailableError, match=rf"--device {name}: torch .* sees no CUDA device"):
        select_device(name)


@pytest.mark.gpu
def test_cuda_is_used_where_it_is():
    assert select_device("auto").type == "cuda"
    with pytest.raises(UnavailableError, match=r"there are . CUDA devices"):
        select_device("cuda:99")


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cpu0"])
def test_unknown_devices_are_named(name):
    with pytest.raises(UsageError, match=f"unknown device '{name}'"):
        select_device(name)


@pytest.mark.parametrize(
    ("launcher", "error", "message"),
    [
        ("torch", UsageError, "unknown launcher 'torch'"),
        ("pytorch", UsageError, "needs the variables that torchrun sets"),
        ("slurm", UnavailableError, "--launcher slurm needs CUDA devices"),
    ],
)
def test_launchers_that_cannot_work_are_named(launcher, error, message, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(error, match=message):
        process_group(launcher, torch.device("cpu")).__enter__()


@pytest.mark.parametrize(
    ("launcher", "variables", "size"),
    [
        ("none", {"WORLD_SIZE": "8"}, 1),
        ("pytorch", {"WORLD_SIZE": "8"}, 8),
        ("slurm", {"SLURM_NTASKS": "16"}, 16),
        ("mpi", {"OMPI_COMM_WORLD_SIZE": "4"}, 4),
    ],
)
def test_world_size_is_known_before_the_group(launcher, variables, size, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert world_size(launcher) == size


@pytest.mark.parametrize(
    "arguments", [["train", "c.py", "--gpus", "4", "--amp"], ["train", "c.py", "--gpus=4", "--amp"]]
)
def test_the_processes_run_the_same_command_without_gpus(arguments):
    command = torchrun_command(arguments, 4)
    assert "--nproc_per_node=4" in command
    assert command[command.index("fldet") + 1 :] == [
        "train", "c.py", "--amp", "--launcher", "pytorch"
    ]  # fmt: skip
