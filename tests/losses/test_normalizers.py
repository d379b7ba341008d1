import pytest
import torch

from fldet.losses.normalizers import CountOverRanks, CountPerRank, CountPlusOne, MovingAverageCount
from fldet.registry import MODELS


@pytest.mark.parametrize(
    ("normalizer", "counts", "expected"),
    [
        (CountOverRanks(), [3, 0, 4], 7),
        (CountOverRanks(), [0, 0], 1),  # no box in the batch: nothing is divided by zero
        (CountPerRank(), [3, 0, 4], 7),
        (CountPerRank(), [0, 0], 1),
        (CountPlusOne(), [3, 0, 4], 10),
        (CountPlusOne(), [0, 0], 2),
        (MovingAverageCount(), [30, 20], 95),  # .9 * 100 + .1 * 50
        (MovingAverageCount(), [0, 0], 90.1),
        (MovingAverageCount(momentum=0.0), [3, 4], 7),
    ],
)
def test_divisor(normalizer, counts, expected):
    divisor = normalizer(torch.tensor(counts))
    assert divisor.item() == pytest.approx(expected)
    assert divisor.shape == ()


def test_moving_average_moves_in_training_only_and_is_saved():
    normalizer = MovingAverageCount(momentum=0.5, initial=8)
    assert [normalizer(torch.tensor([n])).item() for n in (4, 2)] == [6, 4]
    normalizer.eval()
    assert normalizer(torch.tensor([100])).item() == 4
    other = MovingAverageCount()
    other.load_state_dict(normalizer.state_dict())
    assert other.eval()(torch.tensor([0])).item() == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
        (dict(initial=0), "initial must be > 0, got 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MovingAverageCount(**arguments)


def test_a_config_names_them():
    kinds = ("CountOverRanks", "CountPerRank", "CountPlusOne", "MovingAverageCount")
    for kind in kinds:
        assert type(MODELS.build(dict(type=f"fldet.{kind}"))).__name__ == kind
