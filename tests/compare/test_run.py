"""Comparisons of very small models: done, stopped, gone on with, with one that fails."""

import json
import re
import time

import pytest
import warm

from fldet.compare import Settings, compare, plan
from fldet.errors import StoppedError, UsageError

BAD = {
    "wild": "optim_wrapper = dict(optimizer=dict(lr=1e30))\n",
    "broken": "train_dataloader = dict(dataset=dict(ann_file='no_such.json'))\n",
}


@pytest.fixture
def contestants(tiny_config):
    """Returns configs like the tiny one, by their names."""

    def write(*names):
        for name in names:
            text = f"_base_ = './tiny.py'\n{BAD.get(name, '')}"
            tiny_config.with_name(f"{name}.py").write_text(text)
        return tuple(str(tiny_config.with_name(f"{name}.py")) for name in names)

    return write


@pytest.fixture
def commands(commands, monkeypatch):
    """The same, with few images to time."""
    monkeypatch.setattr(plan, "TIMED_IMAGES", 2)
    return commands


def test_those_that_fail_are_named_and_do_not_end_it(contestants, commands, tmp_path):
    done, _ = commands
    configs = contestants("wild", "broken", "one")
    written = compare(Settings(configs=configs, iterations=4, device="cpu"), tmp_path / "work")
    found = {one.name: one for one in written.result.contestants}
    assert [one.state for one in found.values()] == ["diverged", "failed", "done"]
    assert "not finite" in found["wild"].reason
    assert "no_such.json" in found["broken"].reason
    one = found["one"]
    assert (one.iterations, one.planned, len(one.curve)) == (4, 4, 1)
    assert (one.on_envelope, one.ms > 0, one.parameters > 1000) == (True, True, True)
    assert written.result.images == 6
    page = written.page.read_text()
    assert page.count("<strong>diverged</strong>") == page.count("<strong>failed</strong>") == 1
    stored = json.loads((tmp_path / "work" / "result.json").read_text())
    assert [one["name"] for one in stored["result"]["contestants"]] == list(found)
    assert [word for word, _ in done] == ["train", "train", "train", "test", "benchmark"]


def test_stopped_and_gone_on_with_at_the_pace_that_was_measured(contestants, commands, tmp_path):
    done, process = commands
    work = tmp_path / "work"
    settings = Settings(configs=contestants("one", "two"), minutes=0.02, device="cpu")
    process.stop_at = f"train {work / 'two.py'}"
    with pytest.raises(StoppedError, match="what was done is kept") as stopped:
        compare(settings, work)
    assert stopped.value.exit_code == 143
    assert not (work / "compare.html").exists()
    before, texts = len(done), [(work / f"{name}.py").read_text() for name in ("one", "two")]
    found = compare(settings, work).result.contestants
    assert [word for word, _ in done[before:]] == ["test", "benchmark", "benchmark"]
    assert [(work / f"{name}.py").read_text() for name in ("one", "two")] == texts
    assert all(one.state == "done" and 0 < one.iterations <= one.planned for one in found)
    assert all(one.minutes < 0.1 for one in found)
    before = len(done)
    compare(settings, work)
    assert len(done) == before
    with pytest.raises(UsageError, match="another budget"):
        compare(Settings(configs=settings.configs, iterations=3, device="cpu"), work)
    # times of another machine
    file = work / "runs" / "one" / "timing" / "benchmark.json"
    file.write_text(re.sub(r'"threads": \d+', '"threads": 64', file.read_text()))
    compare(settings, work)
    assert [word for word, _ in done[before:]] == ["benchmark", "benchmark"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no_such_folder"], ["no_such_folder"]),
        (["no_such.py"], ["'no_such.py' does not exist"]),
        (["DATA", "OTHER"], ["2 data sets: DATA, OTHER"]),
        (["DATA", "--minutes", "1", "--iterations", "9"], ["both --minutes and --iterations"]),
        (["DATA", "--minutes", "0"], ["0 minutes are no budget"]),
        (["DATA", "--models", "retinanett"], ["unknown model", "did you mean retinanet?"]),
        (["DATA", "--size", "big"], ["'big' is not WxH"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_usage_is_said_and_leaves_nothing_to_go_on_with(
    fldet, arguments, words, tmp_path, tiny_coco
):
    (tmp_path / "DATA").symlink_to(tiny_coco)
    done = fldet("compare", *arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert not list(tmp_path.rglob("compare.json"))


@pytest.mark.slow
@pytest.mark.e2e
def test_killed_and_gone_on_with_on_the_command_line(tmp_path, tiny_coco):
    command = [
        *("compare", tiny_coco, "--models", "retinanet", "faster_rcnn"),
        *("--iterations", "40", "--device", "cpu", "--work-dir", "work"),
    ]
    begun = warm.Started(command, cwd=tmp_path)
    first = tmp_path / "work" / "runs" / "retinanet" / "seed_0"
    while not list(first.glob("iter_*.pth")) and begun.poll() is None:
        time.sleep(0.1)
    begun.kill()
    begun.wait()
    done = warm.run(*command, "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / done.stdout.strip()).is_file()
    logs = sorted(first.glob("2*/*.log"))
    assert len(logs) == 2
    assert "resuming from" in (first / "log.txt").read_text()
