"""Runs of a small SSD and DSSD: training, validation, resuming; what a checkpoint is good for."""

import pytest
import torch

from fldet.analysis.loss_cdf.logits import collect_logits
from fldet.benchmark.clock import STAGES, time_stages
from fldet.checkpoints.files import read_checkpoint
from fldet.checkpoints.model import load_model
from fldet.config.load import load_config
from fldet.data.random_batches import random_batch
from fldet.engine.test import test as run_test
from fldet.engine.train import train
from fldet.errors import ConfigError, UsageError
from fldet.inference.detector import Detector

CONFIG = """
_base_ = '{configs}/systems/shapes/{name}.py'
data_root = '{data}'
model = dict(
    backbone=dict(base_channels=16),
    neck=dict(in_channels=(32, 128), extra_channels=32, widths=(8,) * 5),
    bbox_head=dict(in_channels=(32,) * 5))
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='fldet.CocoDataset',
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='fldet.CocoDataset',
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline))
train_cfg = dict(max_iters=4, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=2))
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_coco):
    from fldet.config.load import CONFIGS

    folder = tmp_path_factory.mktemp("ssd")

    def load(name="ssd_r18", *changes):
        path = folder / f"{name}.py"
        path.write_text(CONFIG.format(configs=CONFIGS, data=tiny_coco, name=name))
        return load_config(path, list(changes))

    return load


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    cfg = config()
    return cfg, train(cfg, work_dir=tmp_path_factory.mktemp("run") / "ssd", device="cpu")


def weights(result):
    return read_checkpoint(result.last_checkpoint)["state_dict"]


def test_a_run_validates_and_its_checkpoint_is_tested_and_predicts(trained, tiny_coco):
    cfg, result = trained
    assert {"loss_cls", "loss_bbox"} <= result.final_losses.keys()
    assert run_test(cfg, result.last_checkpoint, device="cpu").figures.main == result.best_ap
    detector = Detector.load(result.work_dir, device="cpu")  # by the stored config alone
    image = next((tiny_coco / "val2017").glob("*.png"))
    (found,) = detector.predict(image, score_thr=0.02)
    assert len(found) <= 200
    assert set(found.names) <= {"circle", "square"}
    assert (found.boxes >= 0).all()
    assert (found.boxes <= 64).all()  # the size of the file, not of the warped image


def test_two_iterations_and_two_more_are_four(config, trained, tmp_path):
    train(config("ssd_r18", "train_cfg.max_iters=2"), work_dir=tmp_path / "run", device="cpu")
    parts = train(config(), work_dir=tmp_path / "run", resume=True, device="cpu")
    assert parts.iterations == trained[1].iterations == 4
    state = weights(parts)
    assert [n for n, value in weights(trained[1]).items() if not value.equal(state[n])] == []


def test_dssd_starts_from_ssd_and_leaves_its_encoder_as_it_is(config, trained, tmp_path):
    changes = (
        f"load_from={trained[1].last_checkpoint}",
        "model.backbone.frozen_stages=4",
        "model.backbone.norm_eval=True",
        "model.neck.freeze_encoder=True",
        "model.neck.decoder_channels=16",
        "model.bbox_head.feat_channels=16",
        "val_dataloader=None",
        "train_cfg.max_iters=2",
    )
    result = train(config("dssd_r18", *changes), work_dir=tmp_path / "dssd", device="cpu")
    ssd, dssd = weights(trained[1]), weights(result)
    encoder = [name for name in ssd if name.startswith(("backbone.", "neck.extra_layers."))]
    assert len(encoder) > 150
    assert all(dssd[name].equal(ssd[name]) for name in encoder)


def test_stages_of_a_prediction(trained):
    cfg, result = trained
    model = load_model(cfg, result.last_checkpoint).model.eval()
    stages = time_stages(model, [random_batch(1, (160, 160), 2, boxes=0)] * 2)
    assert set(stages) == set(STAGES)
    assert stages["head"] > 0


def test_sigmoid_scores_are_asked_for_where_they_are_needed(trained, tmp_path):
    cfg, result = trained
    with pytest.raises(UsageError, match="SingleStageDetector with SSDHead") as error:
        collect_logits(cfg, result.last_checkpoint, tmp_path / "x.npz", device="cpu")
    assert "sigmoid scores" in error.value.expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["gradient_checkpointing=True", "compile=dict(sizes=[(160, 160)], backend='eager')"]
)
def test_lines_about_the_step_change_no_weight(config, tmp_path, line):
    torch._dynamo.reset()
    ours = "model.data_preprocessor.type=fldet.DetDataPreprocessor"
    changes = ("train_cfg.max_iters=2", "val_dataloader=None", ours)
    plain, other = (
        weights(
            train(config("ssd_r18", *changes, *more), work_dir=tmp_path / str(number), device="cpu")
        )
        for number, more in enumerate([(), (line,)])
    )
    assert all(torch.allclose(value, other[name], atol=1e-6) for name, value in plain.items())


def test_images_that_fit_no_compiled_size(config, tmp_path):
    changes = ("val_dataloader=None", "compile=dict(sizes=[(96, 96)], backend='eager')")
    with pytest.raises(ConfigError, match="160x160"):
        train(config("ssd_r18", *changes), work_dir=tmp_path / "run", device="cpu")
