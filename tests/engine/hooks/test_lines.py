"""The lines of a config about how long a run goes on, and on what."""

import itertools
import logging
import signal
from types import SimpleNamespace

import pytest
import torch

from fldet.checkpoints.files import read_checkpoint
from fldet.config.check import validate
from fldet.config.load import load_config
from fldet.config.resolve import TrainOptions, resolve_training
from fldet.engine.hooks import EarlyStoppingHook, EMAHook, StopHook, TimeBudgetHook
from fldet.engine.hooks.lines import duration, hooks_of_lines
from fldet.engine.train import train
from fldet.errors import CheckpointError, ConfigError, StoppedError

OPTIONS = [
    "train_cfg.max_iters=6",
    "train_cfg.val_interval=3",
    "default_hooks.checkpoint.interval=2",
    "default_hooks.checkpoint.max_keep_ckpts=9",
    "optim_wrapper.optimizer.lr=0.08",
]
AVERAGED = [
    *(*OPTIONS, "ema=True", "accumulate=2"),
    *("train_cfg.val_interval=2", "default_hooks.checkpoint.interval=4"),
]
WEIGHT = "bbox_head.retina_cls.weight"


def completed(tiny_config, *options):
    """Returns the tiny config with options, completed, and the hooks of its lines."""
    cfg = load_config(tiny_config, options)
    resolved = resolve_training(cfg, torch.device("cpu"), TrainOptions())
    return resolved, hooks_of_lines(resolved)


@pytest.fixture
def run(tiny_config, tmp_path):
    """Trains the tiny config in ``tmp_path / name`` with options on top."""

    def start(name, *options, resume=False):
        cfg = load_config(tiny_config, [*OPTIONS, *options])
        return train(cfg, work_dir=tmp_path / name, resume=resume, device="cpu")

    return start


@pytest.fixture
def messages(caplog, monkeypatch):
    """What the log of fldet says."""
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    caplog.set_level(logging.INFO, "fldet")
    return caplog


def stop_in_validation(monkeypatch, iteration):
    """Asks runs to stop in the validation after an iteration; a list of the weights there."""
    ask, seen = StopHook.after_val_iter, []

    def after_val_iter(self, runner, *args, **kwargs):
        if runner.iter == iteration:
            seen.append(runner.model.state_dict()[WEIGHT].clone())
            self.received = lambda: signal.SIGTERM
        ask(self, runner, *args, **kwargs)

    monkeypatch.setattr(StopHook, "after_val_iter", after_val_iter)
    return seen


# --- values ---


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2h30m", 9000), ("1d 2h", 93600), ("90m", 5400), ("1.5h", 5400), ("45s", 45), (30, 30)],
)
def test_durations(value, seconds):
    assert duration(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "2x",
        "30",
        "30m2h",
        "²h",
        "9" * 400 + "d",
        10**400,
        1e13,
        "1h1h",
        "h",
        0,
        -1,
        True,
        [1],
        "nanh",
    ],
)
def test_other_durations_are_refused(value):
    with pytest.raises(ConfigError, match="max_time is") as error:
        duration(value)
    assert "'2h30m'" in error.value.expected


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("ema=2", "ema is 2"),
        ("ema=dict(momentum=1.5)", "ema is"),
        ("ema=dict(gamma=0)", "ema is"),
        ("early_stopping=0.5", "early_stopping is 0.5"),
        ("early_stopping=dict(patience=0)", "early_stopping is"),
        ("early_stopping=dict(rule='higher')", "early_stopping is"),
        ("early_stopping=dict(min_delta=-1)", "min_delta is -1"),
        ("accumulate=0", "accumulate is 0"),
        ("accumulate=True", "accumulate is True"),
        ("accumulate=[2]", r"accumulate is \[2\]"),
        ("accumulate=5", r"accumulate is 5, train_cfg.max_iters 4"),
        (f"accumulate={10**22}", r"accumulate is 1000.*, train_cfg.max_iters 4"),
        (f"accumulate={10**400}", "accumulate is a number of 1329 bits"),
        ("+optim_wrapper.accumulative_counts=5", "optim_wrapper.accumulative_counts is 5"),
        ("ema=dict(gamma=1.5)", "ema is"),
        (f"ema=dict(gamma={10**400})", "ema is"),
        (f"ema=dict(momentum={10**400})", "ema is"),
        (f"early_stopping={10**400}", "early_stopping is a number of 1329 bits"),
        (f"early_stopping=dict(min_delta={10**400})", "min_delta is a number of 1329 bits"),
        (f"max_time={10**400}", "max_time is a number of 1329 bits"),
        ("max_time=1e300", "max_time is 1e"),
        ("max_time='soon'", "max_time is 'soon'"),
    ],
)
def test_values_of_another_kind_are_refused(tiny_config, option, message):
    with pytest.raises(ConfigError, match=message):
        completed(tiny_config, option)


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("early_stoping = 5", "did you mean early_stopping?"),
        ("max_tme = '2h'", "did you mean max_time?"),
        ("acumulate = 2", "did you mean accumulate?"),
        ("ema = dict(momentm=0.1)", "did you mean momentum?"),
        ("early_stopping = dict(patiense=3)", "did you mean patience?"),
        ("ema = dict(type='SGD')", "one of: gamma, momentum"),
        ("ema = dict(type='fldet.EMAHook', momentum=0.1)", "one of: gamma, momentum"),
        ("ema = dict(_scope_='mmdet')", "one of: gamma, momentum"),
        ("ema = dict(priority=1)", "one of: gamma, momentum"),
        ("ema = {'self': 1, 2: 3}", "one of: gamma, momentum"),
        ("early_stopping = dict(type=7)", "one of: min_delta, monitor, patience, rule"),
        ("early_stopping = dict(type=[], patience=2)", "one of: min_delta, monitor"),
    ],
)
def test_misspelt_lines_name_the_right_ones(tiny_config, line, near):
    tiny_config.write_text(f"{tiny_config.read_text()}\n{line}\n")
    with pytest.raises(ConfigError) as error:
        validate(load_config(tiny_config))
    assert near in error.value.expected


@pytest.mark.parametrize("most", [3, 10**6])
def test_accumulation_has_an_upper_bound(tiny_config, most):
    options = [f"train_cfg.max_iters={most}"]
    cfg, _ = completed(tiny_config, *options, f"accumulate={min(most, 100_000)}")
    assert cfg.optim_wrapper.accumulative_counts == min(most, 100_000)
    with pytest.raises(ConfigError, match="accumulate is") as error:
        completed(tiny_config, *options, f"accumulate={min(most, 100_000) + 1}")
    assert "max_iters=1000" in error.value.hint


def test_early_stopping_follows_the_score_of_the_best_checkpoint(tiny_config):
    options = ["default_hooks.checkpoint.save_best=voc/mAP", "early_stopping=3"]
    _, (hook,) = completed(tiny_config, *options)
    assert (hook.monitor, hook.patience) == ("voc/mAP", 3)
    with pytest.raises(ConfigError, match="no validation"):
        completed(tiny_config, *options, "val_dataloader=None")


def test_accumulation_keeps_saves_and_validations_between_steps(tiny_config, messages):
    cfg, hooks = completed(tiny_config, *OPTIONS, "accumulate=4")
    assert hooks == []
    assert cfg.optim_wrapper.accumulative_counts == 4
    assert (cfg.default_hooks.checkpoint.interval, cfg.train_cfg.val_interval) == (4, 4)
    assert "default_hooks.checkpoint.interval 2 -> 4, a multiple of accumulate" in messages.text


# --- ema ---


@pytest.fixture(scope="module")
def averaged(tmp_path_factory, write_tiny_config):
    """A run with an average and gradient accumulation that was never stopped; read-only."""
    folder = tmp_path_factory.mktemp("averaged")
    cfg = load_config(write_tiny_config(folder), AVERAGED)
    return cfg, train(cfg, work_dir=folder / "reference", device="cpu").work_dir


def test_a_checkpoint_holds_the_average_and_the_trained_weights(averaged):
    _, work_dir = averaged
    four, six = (read_checkpoint(work_dir / f"iter_{n}.pth") for n in (4, 6))
    assert [int(one["ema_state_dict"]["steps"]) for one in (four, six)] == [2, 3]
    trained = six["ema_state_dict"][f"module.{WEIGHT}"]
    expected = torch.lerp(four["state_dict"][WEIGHT], trained, 10 / (10 + 2))
    torch.testing.assert_close(six["state_dict"][WEIGHT], expected)
    assert float((trained - expected).abs().max()) > 1e-6
    for name, value in six["state_dict"].items():  # buffers are those of the trained model
        if "running" in name:
            assert torch.equal(value, six["ema_state_dict"][f"module.{name}"])


def test_a_run_stopped_in_a_validation_of_its_average_goes_on_exactly(
    averaged, tmp_path, monkeypatch
):
    """There the average stands in the place of the weights, which must not be saved as such."""
    cfg, reference = averaged
    rarely = load_config(cfg.filename, [*AVERAGED, "default_hooks.checkpoint.interval=6"])
    with monkeypatch.context() as patch:
        seen = stop_in_validation(patch, 4)
        with pytest.raises(StoppedError, match=r"saved iter_4\.pth"):
            train(rarely, work_dir=tmp_path, device="cpu")
    assert_same_weights(reference / "iter_4.pth", tmp_path / "iter_4.pth")
    assert torch.equal(seen[0], read_checkpoint(tmp_path / "iter_4.pth")["state_dict"][WEIGHT])
    train(cfg, work_dir=tmp_path, resume=True, device="cpu")
    one, other = assert_same_weights(reference / "iter_6.pth", tmp_path / "iter_6.pth")
    momenta = [content["optimizer"]["state"] for content in (one, other)]
    for key, state in momenta[0].items():
        assert torch.equal(state["momentum_buffer"], momenta[1][key]["momentum_buffer"])


def test_a_batch_that_was_passed_over_does_not_move_the_average():
    hook, runner = EMAHook(), SimpleNamespace(optim_wrapper=None)
    hook.after_train_iter(runner, 0, outputs={})
    with pytest.raises(AttributeError):  # any other batch is looked at
        hook.after_train_iter(runner, 0, outputs={"loss": 1.0})


def test_an_average_that_a_resume_begins_is_that_of_the_weights(run, tmp_path, monkeypatch):
    """The validation that was cut off comes before the first step, after which it would be."""
    with monkeypatch.context() as patch:
        stop_in_validation(patch, 3)
        with pytest.raises(StoppedError, match=r"saved iter_3\.pth"):
            run("a")
    before = read_checkpoint(tmp_path / "a" / "iter_3.pth")["state_dict"]
    with monkeypatch.context() as patch:
        seen = stop_in_validation(patch, 3)
        with pytest.raises(StoppedError):
            run("a", "ema=True", resume=True)
    assert torch.equal(seen[0], before[WEIGHT])


def assert_same_weights(first, second):
    contents = [read_checkpoint(path) for path in (first, second)]
    for part in ("state_dict", "ema_state_dict"):
        one, other = (content[part] for content in contents)
        assert one.keys() == other.keys()
        assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []
    return contents


def test_a_run_with_an_average_does_not_go_on_without(averaged):
    cfg, work_dir = averaged
    options = [*OPTIONS, "train_cfg.max_iters=8"]
    with pytest.raises(ConfigError, match="averages its weights") as error:
        train(load_config(cfg.filename, options), work_dir=work_dir, resume=True, device="cpu")
    assert "ema=True" in error.value.hint


# --- early stopping ---


def test_early_stopping_counts_on_over_a_stop_and_ends_the_run(
    run, tmp_path, monkeypatch, messages
):
    lines = ["early_stopping=dict(patience=2, min_delta=2.0)", "train_cfg.val_interval=1"]
    with monkeypatch.context() as patch:  # nothing improves an AP by two
        stop_in_validation(patch, 2)
        with pytest.raises(StoppedError):
            run("a", *lines)
    result = run("a", *lines, resume=True)
    reason = "2 validations without a better coco/AP, the best is"
    assert reason in result.ended_early
    assert (result.iterations, result.last_checkpoint.name) == (3, "iter_3.pth")
    assert f"ending after iteration 3: {reason}" in messages.text
    messages.clear()
    assert run("a", *lines, resume=True).seconds == 0.0
    assert f"is finished: {reason}" in messages.text
    more = run("a", "early_stopping=9", resume=True)
    assert (more.iterations, more.ended_early) == (6, "")


class Hub(dict):
    """Stands for a runner with its notes."""

    @property
    def runtime_info(self):
        return self

    def get_info(self, name):
        return self.get(name)

    def update_info(self, name, value):
        self[name] = value


def validations(hook, scores):
    """Whether each of some validations in a row ends the run."""
    runner = SimpleNamespace(message_hub=Hub(), iter=1, max_iters=9, train_loop=SimpleNamespace())
    for score in scores:
        runner.train_loop.stop_training = False
        hook.after_val_epoch(runner, {hook.monitor: score})
        yield runner.train_loop.stop_training


@pytest.mark.parametrize(
    ("options", "scores", "ends"),
    [
        ({}, [0.1, 0.2, 0.2, 0.19], [0, 0, 0, 1]),  # equal is not better
        ({}, [0.1, 0.0, 0.2, 0.1, 0.1], [0, 0, 0, 0, 1]),  # counts anew after a better one
        ({"rule": "less", "monitor": "val/loss"}, [3.0, 2.0, 2.5, 2.0], [0, 0, 0, 1]),
        ({"min_delta": 0.01}, [0.1, 0.105, 0.109], [0, 0, 1]),
        ({}, [float("nan"), float("nan")], [0, 1]),
        ({}, [float("nan"), 0.1, float("nan"), 0.2], [0, 0, 0, 0]),
    ],
)
def test_what_counts_as_better(options, scores, ends):
    hook = EarlyStoppingHook(patience=2, **options)
    assert list(validations(hook, scores)) == [bool(end) for end in ends]


def test_an_unknown_score_names_the_near_one():
    runner = SimpleNamespace(message_hub=Hub(), iter=1)
    with pytest.raises(ConfigError, match="no figure 'coco/AB'") as error:
        EarlyStoppingHook(monitor="coco/AB").after_val_epoch(runner, {"coco/AP": 0.1})
    assert "coco/AP" in error.value.expected


# --- time ---


def test_the_time_budget_counts_over_all_starts(run, tmp_path, monkeypatch, messages):
    """A clock that moves by ten seconds at each look: once before, and at each iteration."""
    ticks = itertools.count(0, 10)
    monkeypatch.setattr(TimeBudgetHook.__init__, "__defaults__", (lambda: next(ticks),))
    first = run("a", "max_time=25")
    assert first.ended_early == "its max_time of 0:00:25 is used up"
    assert first.iterations == 3
    assert first.best_ap is not None
    content = read_checkpoint(first.last_checkpoint)
    assert content["message_hub"]["runtime_info"]["validated_iter"] == 3
    assert run("a", "max_time=25", resume=True).seconds == 0.0
    assert "is finished: its max_time of 0:00:25 is used up" in messages.text
    more = run("a", "max_time=55", resume=True)  # 40 before: the validation took ten, too
    assert (more.iterations, bool(more.ended_early)) == (5, True)
    lr = read_checkpoint(more.last_checkpoint)["param_schedulers"][1]["last_step"]
    assert lr == 5  # the schedule is that of all iterations


# --- starting from a detector of other classes ---


def test_weights_of_other_shapes_start_anew_and_are_named(run, averaged, messages, tmp_path):
    path = averaged[1] / "iter_6.pth"
    content = read_checkpoint(path)
    content["state_dict"] = dict(content["state_dict"])
    content["state_dict"][WEIGHT] = torch.zeros(7, 8, 3, 3)
    torch.save(content, tmp_path / "other.pth")
    options = [f"load_from={tmp_path / 'other.pth'}", "train_cfg.max_iters=1", "ema=True"]
    result = run("a", *options, "optim_wrapper.optimizer.lr=0.0")
    assert f"{WEIGHT} starts anew: it is (7, 8, 3, 3) in the checkpoint, (18," in messages.text
    after = read_checkpoint(result.last_checkpoint)["state_dict"]
    name = "neck.fpn_convs.0.conv.weight"
    assert torch.equal(after[name], content["state_dict"][name])
    assert float(after[WEIGHT].abs().max()) > 0
    torch.save({"state_dict": {"other.weight": torch.zeros(1)}}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="none of the weights fits"):
        run("b", f"load_from={tmp_path / 'none.pth'}")
