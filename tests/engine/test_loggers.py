"""What other tools have of a training, read back by their own libraries."""

import json
import logging
import struct

import numpy as np
import pytest
import torch
from mmdet.registry import VISUALIZERS
from mmdet.visualization import DetLocalVisualizer
from mmengine.visualization import Visualizer

from fldet.config.load import load_config
from fldet.engine import loggers
from fldet.engine.runner import figure_later
from fldet.engine.train import train
from fldet.errors import ConfigError, UnavailableError

pytestmark = pytest.mark.filterwarnings("ignore")  # of the tools, about themselves

LOGGED = {"loss", "loss_cls", "loss_bbox", "lr"}


@pytest.fixture
def run(tiny_config, tmp_path):
    """Trains the tiny config, whose first start ends after iteration 4, with a logger."""

    def start(name, iterations=4, resume=False):
        options = [
            f"train_cfg.max_iters={iterations}",
            "train_cfg.val_interval=4",
            "default_hooks.logger.interval=2",
            "default_hooks.checkpoint.interval=4",
        ]
        cfg = load_config(tiny_config, options)
        folder = tmp_path / "run"
        train(cfg, work_dir=folder, loggers=[name], resume=resume, device="cpu")
        return folder / name

    return start


def test_tensorboard_has_figures_and_config_of_all_starts_once(run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run("tensorboard")
    run("tensorboard", 8, resume=True)
    events = EventAccumulator(str(folder))
    events.Reload()
    steps = {tag: [one.step for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert steps["coco/AP"] == [4, 8]
    assert set(steps) >= LOGGED
    assert all(steps[tag] == sorted(set(steps[tag])) for tag in LOGGED)
    assert {2, 4, 6, 8} <= set(steps["loss"])
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "RetinaNet" in text
    logged = [
        json.loads(line)
        for file in sorted(folder.parent.glob("*/vis_data/scalars.json"))
        for line in file.read_text().splitlines()
    ]
    losses = {one["step"]: one["loss"] for one in logged if "loss" in one}
    shown = {one.step: one.value for one in events.Scalars("loss")}
    assert shown == pytest.approx(losses)


def records(path):
    """Yields the records of a .wandb file: LevelDB's log of protocol buffers of wandb's own."""
    from wandb.proto import wandb_internal_pb2

    data, place, parts = path.read_bytes(), 7, []
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


@pytest.mark.long
def test_wandb_has_figures_and_config_under_one_id(run, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = run("wandb")
    run("wandb", 8, resume=True)
    files = sorted(folder.glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    found = [record for file in files for record in records(file)]
    ids = {one.run.run_id for one in found if one.WhichOneof("record_type") == "run"}
    assert ids == {(folder / "run_id").read_text().strip()}
    history = [
        {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in one.history.item
        }
        for one in found
        if one.WhichOneof("record_type") == "history"
    ]
    assert [one["iteration"] for one in history if "coco/AP" in one] == [4, 8]
    losses = {one["iteration"]: one for one in history if "loss" in one}
    assert {2, 4, 6, 8} <= losses.keys()
    assert all(one.keys() >= LOGGED for one in losses.values())
    keys = {
        item.key
        for one in found
        if one.WhichOneof("record_type") == "config"
        for item in one.config.update
    }
    assert {"model", "optim_wrapper"} <= keys


@pytest.mark.long
def test_mlflow_has_figures_and_config_in_one_run(run, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = run("mlflow")
    run("mlflow", 8, resume=True)
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fldet")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert {2, 4, 6, 8} <= {
        one.step for one in client.get_metric_history(found.info.run_id, "loss")
    }
    steps = [one.step for one in client.get_metric_history(found.info.run_id, "coco/AP")]
    assert steps == [4, 8]
    assert found.data.metrics.keys() >= LOGGED
    assert found.data.params["model.type"] == "RetinaNet"
    (text,) = folder.glob("artifacts/*/artifacts/config.py")
    assert "RetinaNet" in text.read_text()


@pytest.mark.long
def test_clearml_has_figures_and_config_offline(run, monkeypatch):
    pytest.importorskip("clearml")
    monkeypatch.delenv("CLEARML_OFFLINE_MODE", raising=False)
    folder = run("clearml")
    (metrics,) = folder.glob("offline/*/metrics.jsonl")
    events = [one for line in metrics.read_text().splitlines() for one in json.loads(line)]
    assert {one["metric"] for one in events} >= LOGGED | {"coco/AP"}
    assert {2, 4} <= {one["iter"] for one in events if one["metric"] == "loss"}
    (task,) = folder.glob("offline/*/task.json")
    assert "RetinaNet" in task.read_text()


def test_a_missing_package_is_named_before_anything_is_made(run, tmp_path, monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="wandb needs the package wandb") as error:
        run("wandb")
    assert "pip install 'fldet[wandb]'" in error.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "value", ["tensorbord", ["visdom"], [3], [{"mode": "online"}], True, {"type": ["wandb"]}]
)
def test_other_loggers_are_refused(value):
    with pytest.raises(ConfigError, match="loggers is") as error:
        loggers.logger_options(value)
    assert "tensorboard" in error.value.expected


def test_a_logger_twice_is_refused(monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: name)
    assert loggers.logger_options(["wandb", {"type": "mlflow", "run_name": "a"}]) == {
        "wandb": {},
        "mlflow": {"run_name": "a"},
    }
    with pytest.raises(ConfigError, match="loggers is"):
        loggers.logger_options(["wandb", "wandb"])


class Failing(loggers.Logger):
    """Begins, and fails at each figure."""

    packages = ()
    calls = 0

    def start(self, cfg, options, iteration):
        """Does nothing."""

    def _init_env(self):
        """Does nothing."""

    @property
    def experiment(self):
        """Nothing."""

    def add_scalars(self, *_, **__):
        """Fails."""
        Failing.calls += 1
        raise OSError("no network")


def test_a_failing_logger_is_a_warning_and_ends_no_training(run, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    monkeypatch.setitem(loggers.LOGGERS, "failing", Failing)
    folder = run("failing")
    assert (folder.parent / "iter_4.pth").exists()
    text = "failing has failed and gets nothing more: 'OSError: no network'"
    assert text in {one.message for one in caplog.records}
    assert Failing.calls == 1


def test_the_visualizer_makes_its_figure_when_it_draws():
    def drawn(config):
        visualizer = VISUALIZERS.build({**config, "image": None})
        made_before = "fig_save" in vars(visualizer)
        visualizer.set_image(np.full((20, 30, 3), 90, np.uint8))
        visualizer.draw_bboxes(torch.tensor([[3.0, 4.0, 20.0, 15.0]]))
        return visualizer, made_before, visualizer.get_image()

    later = figure_later({"type": "DetLocalVisualizer", "name": "later"})
    visualizer, made_before, picture = drawn(later)
    assert visualizer is Visualizer.get_current_instance()
    assert isinstance(visualizer, DetLocalVisualizer)
    with pytest.raises(AttributeError, match="no attribute 'fig'"):
        visualizer.fig  # noqa: B018
    _, stock_made_before, expected = drawn({"type": "mmdet.DetLocalVisualizer", "name": "stock"})
    assert (made_before, stock_made_before) == (False, True)
    assert np.array_equal(picture, expected)
    assert (picture != 90).any()
    assert figure_later({"type": "Other"}) == {"type": "Other"}
