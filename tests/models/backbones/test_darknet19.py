"""DarkNet-19 against the counts that its authors print."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fldet.models.backbones.darknet19 import DarkNet19


def test_parameters_and_operations_of_the_classifier_are_the_papers():
    """arXiv 1612.08242, Sec. 3: 5.58 billion operations for an image of 224 pixels."""
    with torch.device("meta"):
        model = DarkNet19(out_indices=[5])
        classifier = nn.Conv2d(1024, 1000, 1)
    counter = FlopCounterMode(display=False)
    with counter:
        (last,) = model(torch.empty(1, 3, 224, 224, device="meta"))
        classifier(last)
    weights = sum(p.numel() for part in (model, classifier) for p in part.parameters())
    assert round(weights / 1e6, 2) == 20.84
    assert round(counter.get_total_flops() / 1e9, 2) == 5.58
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [m.kernel_size[0] for m in convolutions] == [3, 3, *[3, 1, 3] * 2, *[3, 1, 3, 1, 3] * 2]
    assert [m.bias for m in convolutions] == [None] * 18


def test_a_narrow_one_with_other_stages():
    model = DarkNet19(base_channels=4, out_indices=(0, 2, 3)).eval()
    maps = model(torch.randn(2, 3, 24, 16))
    assert [tuple(m.shape) for m in maps] == [(2, 4, 24, 16), (2, 16, 6, 4), (2, 32, 3, 2)]
    assert not hasattr(model, "stage4")
    assert {m.negative_slope for m in model.modules() if isinstance(m, nn.LeakyReLU)} == {0.1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base_channels": 5}, "even"),
        ({"out_indices": (4, 6)}, "0 to 5"),
        ({"out_indices": ()}, "0 to 5"),
    ],
)
def test_refuses_what_cannot_be_built(options, words):
    with pytest.raises(ValueError, match=words):
        DarkNet19(**options)
