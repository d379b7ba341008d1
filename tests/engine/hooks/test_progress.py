import logging
from types import SimpleNamespace

import pytest
from mmengine.logging import HistoryBuffer

from fldet.engine.hooks.progress import ProgressHook, format_duration, training_status


def runner(done=9, total=100):
    scalars = {
        "train/loss": HistoryBuffer([4.0, 2.0], [1, 1]),
        "train/loss_cls": HistoryBuffer([3.0, 1.5], [1, 1]),
        "train/lr": HistoryBuffer([0.01], [1]),
        "train/time": HistoryBuffer([2.0], [1]),
    }
    return SimpleNamespace(
        iter=done, max_iters=total, message_hub=SimpleNamespace(log_scalars=scalars)
    )


def test_status_has_mean_losses_rate_and_remaining_time():
    assert training_status(runner(), window=2) == (
        "loss 3.0000  loss_cls 2.2500  lr 1.00e-02  2.00 s/it  eta 0:03:00"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.9, "0:00:59"), (3661, "1:01:01"), (90000, "25:00:00")]
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    caplog.set_level(logging.INFO, "fldet")
    return caplog


def test_a_line_every_interval_and_at_the_end(log):
    hook = ProgressHook(interval=5)
    for done in range(12):
        hook.after_train_iter(runner(done, 12), done)
    assert [r.getMessage().split("  ")[0] for r in log.records] == [
        "iter 5/12", "iter 10/12", "iter 12/12"
    ]  # fmt: skip


def test_in_a_pipe_the_first_line_does_not_wait_for_the_interval(log):
    hook = ProgressHook(interval=50)
    hook.before_train(runner(200, 300))  # that goes on from iteration 200
    for done in range(200, 260):
        hook.after_train_iter(runner(done, 300), done)
    assert [message.split("  ")[0] for message in log.messages] == [
        "iter 201/300", "iter 210/300", "iter 250/300"
    ]  # fmt: skip


def test_validation_figures_are_logged(log):
    ProgressHook().after_val_epoch(runner(9), {"coco/AP": 0.1234, "coco/AP50": 0.5})
    assert log.messages == ["val at iter 9  AP 0.123  AP50 0.500"]


def test_on_a_terminal_there_is_a_bar_and_no_lines(log, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    hook = ProgressHook(interval=1)
    hook.before_train(runner(0, 3))
    hook.after_train_iter(runner(0, 3), 0)
    hook.before_val_epoch(SimpleNamespace(val_dataloader=[1, 2]))
    hook.after_val_iter(None, 0)
    hook.after_val_epoch(runner(1, 3), None)
    assert hook._bar is not None
    hook.after_run(None)
    assert hook._bar is None
    assert log.records == []
    assert "1/3" in capsys.readouterr().err
