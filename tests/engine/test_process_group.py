import pytest
import torch

from fldet.devices import select_device
from fldet.engine.launch import torchrun_command
from fldet.engine.process_group import process_group
from fldet.errors import PeerError, UnavailableError, UsageError

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


def test_the_cpu_can_be_chosen_everywhere():
    from mmengine.device import get_device

    assert select_device("cpu") == torch.device("cpu")
    assert get_device() == "cpu"


@pytest.mark.parametrize("name", ["cuda:²", "cuda:" + "9" * 5000, "cuda:x", "gpu", "cpu:½"])
def test_other_names_of_devices_are_refused(name):
    with pytest.raises(UsageError, match="unknown device"):
        select_device(name)


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


def test_a_lost_connection_is_the_failure_of_another_process():
    cpu = torch.device("cpu")
    lost = "[/x/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:99. See there"
    with (
        pytest.raises(PeerError, match=r"\(Connection closed by peer \[::1\]:99\)") as error,
        process_group("none", cpu),
    ):
        raise RuntimeError(lost)
    assert str(error.value.__cause__) == lost
    with pytest.raises(RuntimeError, match="of this process"), process_group("none", cpu):
        raise RuntimeError("of this process")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "c.py", "--gpus", "4", "--amp"],
        ["train", "--max-restarts", "2", "c.py", "--gpus=4", "--amp"],
    ],
)
def test_the_processes_run_the_same_command_without_gpus(arguments):
    command = torchrun_command(arguments, 4, 2)
    assert {"--nproc_per_node=4", "--max_restarts=2"} <= set(command)
    assert command[command.index("fldet") + 1 :] == [
        "train", "c.py", "--amp", "--launcher", "pytorch"
    ]  # fmt: skip
