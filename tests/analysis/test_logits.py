"""Signed logits of a model whose scores are known, and the sample that is kept of a stream."""

import json

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps

from fldet.analysis.loss_cdf.logits import Reservoir, SampleOptions, collect_logits, split_logits
from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.errors import CheckpointError, UsageError
from fldet.models.dense_heads.retina_head import RetinaHead

BIAS = {0: 1.0, 1: -2.0}  # the score of every anchor for each of the two classes


def keep(size, stream, pieces=1, seed=0):
    reservoir = Reservoir(size, seed)
    for piece in np.array_split(stream, pieces):
        reservoir.add(piece)
    assert reservoir.seen == len(stream)
    return reservoir.sample()


# --- the reservoir -------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [2, 7, 1000])
def test_sample_does_not_depend_on_the_pieces_of_the_stream(pieces, monkeypatch):
    stream = np.random.default_rng(1).normal(size=20_000)
    whole = keep(500, stream)
    monkeypatch.setattr("fldet.analysis.loss_cdf.logits._CHUNK", 64)  # many rounds of dropping
    np.testing.assert_array_equal(keep(500, stream, pieces), whole)


def test_sample_is_uniform_over_the_stream(monkeypatch):
    monkeypatch.setattr("fldet.analysis.loss_cdf.logits._CHUNK", 128)
    size, parts, rounds = 100, 10, 200
    stream = np.arange(2000)
    counts = sum(
        np.bincount(keep(size, stream, seed=seed).astype(int) * parts // len(stream), minlength=10)
        for seed in range(rounds)
    )
    expected = size * rounds / parts
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert counts.sum() == size * rounds
    assert chi_square < 27.9  # 99.9 % of uniform samples, 9 degrees of freedom


def test_sample_is_of_different_members_and_repeatable():
    stream = np.arange(5000)
    first = keep(300, stream, pieces=9)
    assert len(np.unique(first)) == 300
    np.testing.assert_array_equal(first, keep(300, stream))
    assert not np.array_equal(first, keep(300, stream, seed=1))


@pytest.mark.parametrize("length", [0, 1, 50])
def test_a_short_stream_is_kept_whole(length):
    stream = np.arange(length)[::-1]
    sample = keep(50, stream)
    assert sample.dtype == np.float32
    np.testing.assert_array_equal(sample, np.arange(length))


# --- which scores are taken ----------------------------------------------------------------------


def test_positives_are_true_classes_and_negatives_background():
    logits = torch.arange(12.0).reshape(4, 3)
    labels, weights = torch.tensor([1, 3, 3, 3]), torch.tensor([1.0, 1.0, 0.0, 1.0])
    positives, negatives = split_logits(logits, labels, weights)
    assert positives.tolist() == [1]
    assert negatives.tolist() == [-3, -4, -5, -9, -10, -11]
    _, hardest = split_logits(logits, labels, weights, "anchor")
    assert hardest.tolist() == [-5, -11]


@pytest.mark.parametrize("label", [0, 2])  # all objects; all background
def test_one_kind_of_anchor_only(label):
    positives, negatives = split_logits(
        torch.zeros(5, 2), torch.full((5,), label), torch.ones(5), "anchor"
    )
    assert (len(positives), len(negatives)) == ((5, 0) if label == 0 else (0, 5))


# --- a model over images -------------------------------------------------------------------------


@pytest.fixture
def constant(tiny_config, tmp_path):
    """A config and weights with which every anchor has the scores ``BIAS``."""
    cfg = load_config(tiny_config)
    model = build_model(prepare_config(cfg, phases=("val",)))
    last = model.bbox_head.retina_cls
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor(list(BIAS.values())).repeat(len(last.bias) // 2)
    path = tmp_path / "constant.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    return cfg, path, model


def collect(constant, out, **options):
    cfg, path, _ = constant
    with np.load(collect_logits(cfg, path, out, SampleOptions(**options), device="cpu")) as content:
        procedure = json.loads(str(content["procedure"]))
        return content["positives"], content["negatives"], procedure


def assigned(model, tiny_coco):
    """Number of anchors by label (2: background, -1: ignored) by the assigner, image by image."""
    content = json.loads((tiny_coco / "annotations" / "instances_val2017.json").read_text())
    anchors = torch.cat(
        model.bbox_head.prior_generator.grid_priors(
            [(12, 12), (6, 6), (3, 3), (2, 2), (1, 1)], device="cpu"
        )
    )
    counts = dict.fromkeys((0, 1, 2, -1), 0)
    for image in content["images"]:
        boxes = [
            one
            for one in content["annotations"]
            if one["image_id"] == image["id"] and not one["iscrowd"]
        ]
        labels = torch.tensor([0 if one["category_id"] == 3 else 1 for one in boxes])
        corners = torch.tensor([one["bbox"] for one in boxes]).reshape(-1, 4).float() * 96 / 64
        corners[:, 2:] += corners[:, :2]
        found = bbox_overlaps(anchors, corners)
        for label in label_of_anchors(found, labels):
            counts[label] += 1
    return counts


def label_of_anchors(overlaps, labels):
    if not len(labels):
        return [2] * len(overlaps)
    best, which = overlaps.max(dim=1)
    result = torch.full((len(overlaps),), -1)
    result[best < 0.4] = 2
    result[best >= 0.5] = labels[which[best >= 0.5]]
    for column in range(len(labels)):  # D4: the best anchors of a box are positive
        result[overlaps[:, column] == overlaps[:, column].max()] = labels[column]
    return result.tolist()


def test_scores_are_those_of_the_labels_that_training_gives(constant, tiny_coco, tmp_path):
    positives, negatives, procedure = collect(constant, tmp_path / "a.npz")
    expected = assigned(constant[2], tiny_coco)
    assert expected[0] > 0 < expected[1]
    values, counts = np.unique(positives, return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {
        BIAS[0]: expected[0],
        BIAS[1]: expected[1],
    }
    values, counts = np.unique(negatives, return_counts=True)
    assert values.tolist() == [-BIAS[0], -BIAS[1]]
    assert counts.tolist() == [expected[2]] * 2
    assert positives.dtype == negatives.dtype == np.float32
    assert procedure == {
        "config": "tiny",
        "checkpoint": "constant.pth",
        "split": "val",
        "window": "anchor-class",
        "images": 6,
        "seed": 0,
        "positives_seen": expected[0] + expected[1],
        "negatives_seen": 2 * expected[2],
    }


def test_window_anchor_takes_the_highest_score_of_each(constant, tiny_coco, tmp_path):
    _, negatives, procedure = collect(constant, tmp_path / "a.npz", window="anchor")
    assert procedure["negatives_seen"] == assigned(constant[2], tiny_coco)[2]
    assert set(negatives.tolist()) == {-BIAS[0]}


def test_batches_do_not_matter(tiny_config, tmp_path):
    def run(batch_size):
        torch.manual_seed(0)
        cfg = load_config(tiny_config, [f"val_dataloader.batch_size={batch_size}"])
        model = build_model(prepare_config(cfg, phases=("val",)))
        torch.save(model.state_dict(), tmp_path / "random.pth")
        return collect(
            (cfg, tmp_path / "random.pth", model),
            tmp_path / f"{batch_size}.npz",
            num_negatives=100,
            num_positives=7,
        )

    one, four = run(1), run(4)
    assert (len(one[0]), len(one[1])) == (7, 100)
    assert one[2] == four[2]
    for a, b in zip(one[:2], four[:2], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_cost_is_proportional_to_the_images(constant, tmp_path, monkeypatch):
    seen = []
    forward = RetinaHead.forward
    monkeypatch.setattr(RetinaHead, "forward", lambda *args: seen.append(1) or forward(*args))
    for images in (1, 2, 4):
        seen.clear()
        _, _, procedure = collect(constant, tmp_path / f"{images}.npz", max_images=images)
        assert len(seen) == procedure["images"] == images


def test_images_are_chosen_by_the_seed(constant, tmp_path):
    def positives(seed):
        return collect(constant, tmp_path / "a.npz", max_images=2, seed=seed)[2]["positives_seen"]

    assert positives(0) == positives(0)
    assert len({positives(seed) for seed in range(6)}) > 1


def test_training_images_come_without_augmentation(constant, tmp_path):
    _, _, procedure = collect(constant, tmp_path / "a.npz", split="train")
    assert (procedure["split"], procedure["images"]) == ("train", 6)


def test_a_diverged_model_is_named(constant, tmp_path):
    cfg, path, model = constant
    model.bbox_head.retina_cls.bias.data[0] = float("nan")
    torch.save(model.state_dict(), path)
    with pytest.raises(CheckpointError, match="not finite, on image 0"):
        collect((cfg, path, model), tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": SampleOptions(window="pixel")}, "unknown window 'pixel'"),
        ({"sampling": SampleOptions(split="dev")}, "unknown split 'dev'"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
    ],
)
def test_wrong_options(constant, tmp_path, options, message):
    cfg, path, _ = constant
    with pytest.raises(UsageError, match=message):
        collect_logits(cfg, path, tmp_path / "a.npz", **{"device": "cpu", **options})
