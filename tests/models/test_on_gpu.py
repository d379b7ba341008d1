"""Losses and miners give on a GPU what they give on a CPU."""

import pytest
import torch

from fldet.models.losses.sigmoid_loss import CrossEntropyLoss, FocalLoss, FocalLossStar, HingeLoss
from fldet.models.task_modules.miners import OHEM, Examples, HardNegatives

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    "loss", [FocalLoss(), FocalLossStar(), CrossEntropyLoss(alpha=0.75), HingeLoss()], ids=repr
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_loss_and_gradient(loss, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(1000, 80, generator=generator)).to(dtype)
    labels = torch.randint(0, 81, (1000,), generator=generator)
    weight = (torch.rand(1000, generator=generator) < 0.9).float()
    results = {}
    for device in ("cpu", "cuda"):
        x = logits.to(device).requires_grad_()
        value = loss(x, labels.to(device), weight.to(device), 100.0)
        value.backward()
        results[device] = value.detach().cpu(), x.grad.cpu()
    torch.testing.assert_close(results["cuda"], results["cpu"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "miner",
    [OHEM(), OHEM(neg_pos_ratio=3, iou_threshold=0.5), OHEM(per="batch"), HardNegatives()],
    ids=lambda miner: type(miner).__name__,
)
def test_miner_keeps_the_same_examples(miner):
    generator = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 500, (20_000, 2), generator=generator).float()
    boxes = torch.cat(
        [corner, corner + torch.randint(10, 90, (20_000, 2), generator=generator)], dim=1
    )
    fields = dict(
        cls_losses=torch.rand(20_000, generator=generator),
        box_losses=torch.zeros(20_000),
        is_positive=torch.rand(20_000, generator=generator) < 0.01,
        classes=torch.zeros(20_000, dtype=torch.long),
        anchors=boxes,
        decoded=boxes,
    )
    kept = {
        device: miner.mine([Examples(**{name: v.to(device) for name, v in fields.items()})])[0]
        for device in ("cpu", "cuda")
    }
    assert kept["cuda"].device.type == "cuda"
    assert kept["cuda"].tolist() == kept["cpu"].tolist()
