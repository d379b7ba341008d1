"""Apple's GPUs: which name chooses one, and that nothing on the way needs float64, which they lack.

Other devices are in ``tests/engine/test_process_group.py``.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fldet import train
from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.devices import select_device
from fldet.engine.launch import relaunch
from fldet.errors import UnavailableError, UsageError
from fldet.losses import elements
from fldet.models.losses.sigmoid_loss import FocalLoss

HAS_MPS = torch.backends.mps.is_available()


class NoFloat64(TorchDispatchMode):
    """Refuses tensors in float64, as Apple's GPUs do."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            assert getattr(one, "dtype", None) != torch.float64, f"{func} makes float64"
        return made


@pytest.fixture
def on_mps(monkeypatch):
    """Sums of losses get the type that they have there."""
    from fldet.losses import fused, fused_torch, sweep
    from fldet.models.losses import sigmoid_loss

    dtype = elements.sum_dtype(torch.device("mps"))
    assert dtype == torch.float32
    for module in (fused, fused_torch, sweep, sigmoid_loss):
        monkeypatch.setattr(module, "sum_dtype", lambda device: dtype)


@pytest.mark.skipif(HAS_MPS, reason="this machine has one")
def test_a_missing_gpu_of_apples_is_named():
    with pytest.raises(UnavailableError, match=r"--device mps: torch .* sees no GPU of Apple's"):
        select_device("mps")


def test_it_is_chosen_by_name_only(monkeypatch):
    import mmengine.device.utils

    monkeypatch.setattr(mmengine.device.utils, "DEVICE", "cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert select_device("mps") == torch.device("mps")
    assert mmengine.device.get_device() == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match="--gpus 2 --device mps"):
        relaunch(None, 2, phases=("train",), device="mps")


@pytest.mark.parametrize("avg_factor", [3.0, torch.tensor(3.0)], ids=["number", "tensor"])
def test_losses_need_no_float64(on_mps, avg_factor):
    maps = [torch.randn(2, 18, size, size, requires_grad=True) for size in (4, 2)]
    labels = [torch.randint(0, 3, (2, size, size, 9)) for size in (4, 2)]
    with NoFloat64():
        FocalLoss()(maps, labels, avg_factor=avg_factor).backward()
    assert all(one.grad.isfinite().all() for one in maps)


def test_a_step_and_a_prediction_need_no_float64(on_mps, tiny_config):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    torch.manual_seed(0)
    model = build_model(load_config(tiny_config, ["model.bbox_head.num_classes=2"]))
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0], [20.0, 30.0, 60.0, 60.0]])
    sample = DetDataSample(
        metainfo=dict(
            img_shape=(64, 64), pad_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0)
        ),
        gt_instances=InstanceData(bboxes=boxes, labels=torch.tensor([0, 1])),
    )
    images = torch.randn(2, 3, 64, 64)
    with NoFloat64():
        losses = model(images, [sample, sample], mode="loss")
        sum(sum(v) if isinstance(v, list) else v for v in losses.values()).backward()
        model.eval()
        with torch.no_grad():
            found, _ = model(images, [sample, sample.clone()], mode="predict")
    assert found.pred_instances.scores.dtype == torch.float32


@pytest.mark.mps
@pytest.mark.skipif(not HAS_MPS, reason="needs a GPU of Apple's")
def test_a_training_runs_there(tiny_config, tmp_path):
    result = train(load_config(tiny_config), work_dir=tmp_path / "run", device="mps")
    assert (result.work_dir / "iter_4.pth").is_file()
