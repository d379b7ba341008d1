"""The two commands as functions, on a data set of six small images."""

import json

import pytest
import torch

from fldet.analysis.log.read import read_log
from fldet.analysis.log.summary import summarize_log
from fldet.checkpoints.files import read_checkpoint
from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.engine.test import check_precision
from fldet.engine.test import test as run_test
from fldet.engine.train import train
from fldet.errors import CheckpointError, ConfigError, DataError, UsageError
from fldet.evaluation.figures import CocoFigures
from fldet.paper import compare, find_table


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_tiny_config):
    """A work dir after four iterations."""
    folder = tmp_path_factory.mktemp("trained")
    cfg = load_config(write_tiny_config(folder))
    return cfg, train(cfg, work_dir=folder / "run", device="cpu")


def test_training_leaves_a_self_contained_work_dir(trained):
    _, result = trained
    assert result.iterations == 4
    assert result.last_checkpoint == result.work_dir / "iter_4.pth"
    assert (result.work_dir / "iter_2.pth").exists()
    assert result.best_checkpoint is not None
    assert 0 <= result.best_ap <= 1
    assert set(result.final_losses) == {"loss", "loss_cls", "loss_bbox"}
    resolved = load_config(result.work_dir / "tiny.py")
    assert resolved.model.bbox_head.num_classes == 2
    assert resolved.optim_wrapper.optimizer.lr == pytest.approx(0.01 * 2 / 16)


@pytest.mark.parametrize(
    ("interval", "steps"), [(50, (3, 4)), (3, (3, 4)), (2, (2, 4))]
)  # all images have been seen after 3
def test_the_last_iteration_is_logged_whatever_the_interval(
    write_tiny_config, tmp_path, interval, steps
):
    options = [f"default_hooks.logger.interval={interval}", "val_dataloader=None"]
    cfg = load_config(write_tiny_config(tmp_path), [*options, "val_cfg=None", "val_evaluator=None"])
    train(cfg, work_dir=tmp_path / "run", device="cpu")
    run = read_log(tmp_path / "run")
    assert run.train["loss"].iterations == steps
    assert summarize_log(run).iterations == 4


def test_training_changes_weights_and_they_stay_finite(trained):
    _, result = trained
    first = read_checkpoint(result.work_dir / "iter_2.pth")["state_dict"]
    last = read_checkpoint(result.last_checkpoint)["state_dict"]
    assert not torch.equal(
        first["bbox_head.retina_cls.weight"], last["bbox_head.retina_cls.weight"]
    )
    assert all(torch.isfinite(value.float()).all() for value in last.values())


def test_a_work_dir_is_not_overwritten(trained):
    cfg, result = trained
    with pytest.raises(UsageError, match=r"already holds a run .*iter_4.pth") as error:
        train(cfg, work_dir=result.work_dir, device="cpu")
    assert "--resume" in error.value.hint


def test_resuming_a_finished_run_says_so_and_does_nothing(trained):
    cfg, result = trained
    again = train(cfg, work_dir=result.work_dir, resume=True, device="cpu")
    assert (again.iterations, again.seconds) == (4, 0.0)


def test_resume_goes_on_where_the_run_stopped(tiny_config, tmp_path):
    cfg = load_config(tiny_config)
    train(cfg, work_dir=tmp_path / "run", device="cpu")
    (tmp_path / "run").rename(tmp_path / "moved")
    longer = load_config(tiny_config, ["train_cfg.max_iters=6"])
    result = train(longer, work_dir=tmp_path / "moved", resume=True, device="cpu")
    assert result.iterations == 6
    assert read_checkpoint(result.last_checkpoint)["meta"]["iter"] == 6


def test_same_seed_same_weights_another_seed_others(tiny_config, tmp_path):
    def weights(name, seed):
        cfg = load_config(tiny_config, ["train_cfg.max_iters=2", "val_dataloader=None"])
        result = train(cfg, work_dir=tmp_path / name, seed=seed, device="cpu")
        return read_checkpoint(result.last_checkpoint)["state_dict"]["neck.fpn_convs.0.conv.weight"]

    assert torch.equal(weights("a", 1), weights("b", 1))
    assert not torch.equal(weights("c", 1), weights("d", 2))


def test_amp_trains_on_a_cpu_with_losses_in_float32(tiny_config, tmp_path):
    cfg = load_config(tiny_config)
    result = train(cfg, work_dir=tmp_path / "run", amp=True, device="cpu")
    state = read_checkpoint(result.last_checkpoint)["state_dict"]
    assert [name for name, value in state.items() if not torch.isfinite(value.float()).all()] == []
    assert result.final_losses["loss"] > 0


def test_testing_gives_figures_pictures_and_a_results_file(trained, tmp_path):
    cfg, result = trained
    cfg.model.test_cfg.score_thr = 0.0  # after four iterations nothing scores much
    tested = run_test(
        cfg,
        result.work_dir,
        work_dir=tmp_path / "test",
        show_dir=tmp_path / "pictures",
        out=tmp_path / "results.json",
        device="cpu",
    )
    assert tested.checkpoint == result.best_checkpoint
    assert len(tested.figures.summary) == 12
    assert set(tested.figures.per_class) == {"square", "circle"}
    assert tested.figures.num_images == 6
    assert sorted(path.name for path in tested.pictures) == [f"{i}.jpg" for i in range(6)]
    detections = json.loads((tmp_path / "results.json").read_text())
    assert len(detections) == tested.figures.num_detections > 0
    assert set(detections[0]) == {"image_id", "category_id", "bbox", "score"}
    assert {one["category_id"] for one in detections} <= {3, 7}
    assert {one["image_id"] for one in detections} <= {5, 15, 25, 35, 45, 55}


def test_the_result_stays_in_the_work_dir_where_the_papers_rows_look_for_it(trained, tmp_path):
    cfg, result = trained
    table = find_table("table3")
    work_dir = tmp_path / table.rows[0].config.stem / "test"
    tested = run_test(cfg, result.work_dir, work_dir=work_dir, device="cpu")
    content = json.loads((work_dir / "result.json").read_text())
    assert content["command"] == "test"
    assert content["result"]["results_file"] == str(work_dir / "detections.json")
    assert content["result"]["image_ids"] is None
    assert "outfile" not in (work_dir / "tiny.py").read_text()
    assert content["result"]["figures"]["num_images"] == 6
    ours = compare(table, tmp_path)[0].ours
    assert ours.figures["AP"] == pytest.approx(100 * tested.figures.summary["AP"])


def test_max_images_tests_only_so_many(trained, tmp_path):
    cfg, result = trained
    tested = run_test(cfg, result.work_dir, work_dir=tmp_path, max_images=2, device="cpu")
    assert tested.figures.num_images == 2
    assert tested.image_ids == (5, 15)
    assert tested.results_file == tmp_path / "detections.json"
    assert {one["image_id"] for one in json.loads(tested.results_file.read_text())} <= {5, 15}


def test_an_optimized_copy_is_compared_with_mmdetections_code(trained, tmp_path):
    cfg, result = trained
    tested = run_test(
        cfg, result.work_dir, work_dir=tmp_path, precision="fp32", compare=True, device="cpu"
    )
    assert (tested.optimized, tested.precision) == (True, "float32")
    assert tested.check.tolerance == 0.5
    assert tested.check.within
    saved = json.loads((tmp_path / "result.json").read_text())["result"]
    assert saved["check"]["difference"] == tested.check.difference


def test_several_processes_and_unknown_precisions_are_refused(trained, monkeypatch):
    cfg, result = trained
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="--compare runs in one process"):
        run_test(cfg, result.work_dir, compare=True, launcher="pytorch", device="cpu")
    with pytest.raises(UsageError, match="unknown precision"):
        run_test(cfg, result.work_dir, precision="int8", device="cpu")


@pytest.mark.parametrize(
    ("stock", "tested", "within"),
    [
        (0.40, 0.396, True),
        (0.40, 0.394, False),
        (0.40, 0.406, False),  # better by chance is no agreement
        (float("nan"), float("nan"), True),  # no ground truth, nothing to compare
    ],
)
def test_the_tolerance_is_in_points_of_ap(stock, tested, within):
    figures = [CocoFigures({"AP": ap}, {}, 1, 1, "faster") for ap in (stock, tested)]
    assert check_precision(*figures, 0.5).within == within


def test_a_checkpoint_of_another_model_is_refused(trained, tmp_path):
    cfg, result = trained
    other = load_config(cfg.filename, ["model.bbox_head.stacked_convs=2"])
    with pytest.raises(
        CheckpointError, match=r"does not fit the model of the config: .* is missing"
    ):
        run_test(other, result.work_dir, work_dir=tmp_path, device="cpu")


# --- configs that inherit MMDetection's data, schedule or metric ---


def test_mmdetections_class_of_the_same_name_becomes_ours(tiny_config, tmp_path):
    """Without a prefix MMEngine would build MMDetection's, which lists no broken images."""
    cfg = load_config(tiny_config, ["train_cfg.max_iters=2", "train_cfg.val_interval=2"])
    cfg.pop("randomness")  # not in their runtime either
    cfg.train_dataloader.dataset.pop("max_broken_images")  # theirs has no such keyword
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.type = "CocoDataset"
    result = train(cfg, work_dir=tmp_path / "run", device="cpu", seed=5)
    resolved = load_config(tmp_path / "run" / "tiny.py")
    assert resolved.randomness.seed == 5
    assert resolved.train_dataloader.dataset.type == "fldet.CocoDataset"
    assert (result.iterations, resolved.model.bbox_head.num_classes) == (2, 2)


def test_a_loop_without_a_length_is_refused(tiny_config, tmp_path):
    cfg = load_config(tiny_config)
    cfg.train_cfg = {"type": "IterBasedTrainLoop"}
    with pytest.raises(ConfigError, match="fldet trains by iterations, not by epochs"):
        train(cfg, work_dir=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_another_metric_is_refused_before_the_test(trained, tmp_path, monkeypatch):
    _, result = trained
    changes = ["test_evaluator={'_delete_': True, 'type': 'CocoMetric', 'metric': 'bbox'}"]
    theirs = load_config(result.work_dir / "tiny.py", changes)
    truth = f"{theirs.data_root}/annotations/instances_val2017.json"
    theirs.test_evaluator.ann_file = truth
    monkeypatch.setattr("mmengine.runner.Runner.test", lambda self: pytest.fail("was run"))
    with pytest.raises(ConfigError, match=r"neither fldet\.CocoMetric nor") as error:
        run_test(theirs, result.work_dir, device="cpu", work_dir=tmp_path)
    option = error.value.hint.removeprefix('--cfg-options "').removesuffix('"')
    assert load_config(result.work_dir / "tiny.py", [option]).test_evaluator == {
        "type": "fldet.CocoMetric"
    }


def test_the_truth_of_a_voc_metric_is_read_before_the_first_iteration(tiny_config, tmp_path):
    metric = "val_evaluator=dict(_delete_=True, type='fldet.VOCMetric', ann_file='no.json')"
    with pytest.raises(DataError, match=r"no.json"):
        train(load_config(tiny_config, [metric]), work_dir=tmp_path / "run", device="cpu")
    assert not list((tmp_path / "run").glob("iter_*.pth"))


def test_a_console_that_was_closed_does_not_stop_the_next_run(trained, tmp_path, monkeypatch):
    """A notebook or a test replaces stderr, and closes what it put there."""
    cfg, _ = trained
    with open(tmp_path / "console.txt", "w") as console:
        monkeypatch.setattr("sys.stderr", console)
        build_model(cfg)
    monkeypatch.undo()
    assert build_model(cfg) is not None
