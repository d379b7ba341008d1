"""What the commands of ``fldet benchmark`` say, and with which exit code they end."""

import dataclasses
import json

import pytest
from typer.testing import CliRunner

from fldet.benchmark.predict import OptimizedCopy
from fldet.benchmark.results import SpeedCell, SpeedComparison, SpeedResult, SpeedTable
from fldet.cli.benchmark import in_present_words
from fldet.cli.benchmark.text import describe_speed, describe_table
from fldet.cli.main import app


def test_a_speed_is_described_with_its_conditions():
    speed = SpeedResult(
        *(10.0, 12.0, 50, (64, 96), "cpu", "bfloat16", 1, 15.0, 98.0),
        stages_ms={"backbone": 6.0},
        optimized=True,
        compiled=True,
        against=SpeedComparison("mmdet", 40.0, 4.0),
        timed="boxes",
        machine={"torch": "2"},
    )
    text = describe_speed(speed)
    for part in (
        "median 10.0 ms per image, 90th percentile 12.0 ms, 99th 15.0 ms; 98.00 images per second",
        "x4.00 as fast as mmdet in float32 (median 40.0 ms",
        "backbone 6.0",
        "cpu, an optimized copy in bfloat16, compiled, 1 CPU threads",
        "timed: boxes",
        "torch 2",
    ):
        assert part in text


SPEED = SpeedResult(
    *(10.0, 12.0, 5, (64, 96), "cpu", "float32", 1, 15.0, 98.0),
    stages_ms={"backbone": 6.0, "head": 2.0},
    warmup=3,
    gflop=2.0,
    machine_gflops={"conv": 800.0, "matmul": 700.0},
    peak_share=0.25,
    peak_memory_mib=7.4,
    memory="a rise",
)
TABLE = SpeedTable(
    "retinanet/rDEPTH_fpn_1x.py",
    (
        SpeedCell(50, 400, 64, SPEED),
        SpeedCell(50, 500, 72, None, "out of memory"),
        SpeedCell(101, 400, 81, dataclasses.replace(SPEED, median_ms=20.0, peak_share=0.3)),
        SpeedCell(101, 500, None, dataclasses.replace(SPEED, median_ms=30.0)),
    ),
)


def run_benchmark(capfd, *arguments):
    done = CliRunner().invoke(app, ["benchmark", *map(str, arguments)])
    captured = capfd.readouterr()
    return done.exit_code, done.stdout + captured.out, done.stderr + captured.err


def test_work_and_memory_are_described():
    text = describe_speed(SPEED)
    for part in (
        "2 GFLOP in the median time: 25% of the machine's measured peak (GFLOP/s in float32: conv "
        "800, matmul 700)",
        "peak memory 7 MiB: a rise",
        "5 images, one at a time, of 64x96 (most frequent size), after 3 for warming up; weights: "
        "random",
    ):
        assert part in text
    unknown = dataclasses.replace(SPEED, gflop=float("nan"), peak_memory_mib=float("nan"))
    text = describe_speed(unknown)
    assert "operations not counted; the machine's measured peak" in text
    assert "peak memory unknown" in text


def test_a_training_step_is_described_as_such():
    step = dataclasses.replace(SPEED, training=True, batch_size=2)
    text = describe_speed(step)
    assert "median 10.0 ms per training step of 2 images" in text
    assert "5 steps, of 64x96" in text


def test_a_table_has_the_papers_times_beside_and_says_what_failed():
    lines = describe_table(TABLE).splitlines()
    assert lines[0].split() == ["median", "ms", "400", "px", "500", "px"]
    assert lines[2].split() == ["ResNet-50", "10.0", "(64)", "failed", "(72)"]
    assert lines[3].split() == ["ResNet-101", "20.0", "(81)", "30.0"]
    assert "in brackets: Table 1e of the paper, on an Nvidia M40" in lines
    assert "R50, 500 px failed: out of memory" in lines
    assert any("25% to 30% of the machine's measured peak" in line for line in lines)


@pytest.mark.parametrize("words", [[], ["table"]], ids=" ".join)
def test_a_table_is_written_as_it_comes_and_a_failed_cell_ends_with_1(
    monkeypatch, capfd, tmp_path, words
):
    file, sizes = tmp_path / "table.json", []

    def fake(config, *, on_cell, depths, scales, **options):
        assert (config, depths, scales) == (None, [50, 101], [400, 500])
        for count in range(1, 5):
            on_cell(SpeedTable(TABLE.config, TABLE.cells[:count]))
            sizes.append(len(json.loads(file.read_text())["result"]["cells"]))
        return TABLE

    monkeypatch.setattr("fldet.benchmark.table.speed_table", fake)
    lists = ["--depths", 50, "--depths", 101, "--scales", 400, "--scales", 500]
    code, out, err = run_benchmark(
        capfd, *words, *lists, "--out", file, "--out-dir", tmp_path / "drawn"
    )
    assert (code, sizes) == (1, [1, 2, 3, 4])
    assert "2 of 4: ResNet-50, 500 px: out of memory" in err
    content = json.loads(file.read_text())
    assert content["command"] == "benchmark --scales"
    assert content["result"]["cells"][1]["error"] == "out of memory"
    names = [f"speed_table1e.{ending}" for ending in ("json", "png", "svg")]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == names
    assert all(str(tmp_path / "drawn" / name) in out for name in names)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (["c.py"], ["predict", "c.py"]),
        (["--shape", "64x64", "c.py", "w.pth"], ["predict", "--shape", "64x64", "c.py", "w.pth"]),
        (["c.py", "--help"], ["predict", "c.py", "--help"]),
        (["c.py", "--train", "--amp"], ["train", "c.py", "--amp"]),
        (["--train", "c.py", "--images", "9"], ["train", "c.py", "--images", "9"]),
        (["--train", "--trust-checkpoint", "c.py"], ["train", "c.py"]),  # it had no effect
        (["--depths", "50"], ["table", "--depths", "50"]),
        (["c.py", "--scales=400"], ["table", "c.py", "--scales=400"]),
        (["--scales", "400", "--trust-checkpoint"], ["table", "--scales", "400"]),
    ],
    ids=" ".join,
)
def test_what_was_typed_before_there_were_three_commands(before, now):
    assert in_present_words(before) == now


@pytest.mark.parametrize(
    "words",
    [[], ["--help"], ["predict", "c.py"], ["train", "c.py"], ["table", "--depths", "50"]],
    ids=" ".join,
)
def test_what_is_typed_now_stays(words):
    assert in_present_words(words) == words


@pytest.mark.parametrize("words", [["c.py", "w.pth"], ["predict", "c.py", "w.pth"]], ids=" ".join)
def test_an_image_is_timed_in_both_spellings(monkeypatch, capfd, tmp_path, words):
    got = {}

    def fake(cfg, checkpoint, **options):
        got.update(options, cfg=cfg, checkpoint=checkpoint.name)
        return SPEED

    monkeypatch.setattr("fldet.config.load.load_config", lambda config, overrides: config)
    monkeypatch.setattr("fldet.benchmark.predict.benchmark", fake)
    options = ["--images", 7, "--shape", "64x96", "--precision", "bf16", "--trust-checkpoint"]
    file = tmp_path / "speed.json"
    code, out, _ = run_benchmark(capfd, *words, *options, "--out", file, "--json")
    assert (code, json.loads(out)) == (0, json.loads(file.read_text()))
    assert json.loads(out)["command"] == "benchmark"  # as analyze speed-accuracy wants it
    assert got == {
        "cfg": "c.py",
        "checkpoint": "w.pth",
        "num_images": 7,
        "shape": (64, 96),
        "device": "auto",
        "copy": OptimizedCopy("bf16"),
        "against": None,
        "trust_checkpoint": True,
    }


@pytest.mark.parametrize(
    ("options", "copy"),
    [
        ([], None),
        (["--compile"], OptimizedCopy("fp32", compile=True)),
        (["--precision", "bf16", "--cuda-graph"], OptimizedCopy("bf16", cuda_graph=True)),
    ],
)
def test_options_of_an_optimized_copy(monkeypatch, capfd, options, copy):
    copies = []

    def fake(*args, copy, **options):
        copies.append(copy)
        return SPEED

    monkeypatch.setattr("fldet.benchmark.predict.benchmark", fake)
    code, out, _ = run_benchmark(capfd, "retinanet/r50_fpn_1x.py", *options, "--quiet")
    assert (code, out, copies) == (0, "10.0\n", [copy])


@pytest.mark.parametrize("words", [["--train"], ["train"]], ids=" ".join)
def test_a_time_of_training_does_not_pass_for_one_of_an_image(monkeypatch, capfd, tmp_path, words):
    step = dataclasses.replace(SPEED, training=True, batch_size=2)
    got = {}
    monkeypatch.setattr(
        "fldet.benchmark.training.benchmark_training",
        lambda cfg, **options: got.update(options) or step,
    )
    config, drawn = "retinanet/r50_fpn_1x.py", tmp_path / "drawn"
    code, out, _ = run_benchmark(capfd, *words, config, "--images", 9, "--json", "--out-dir", drawn)
    assert (code, got["steps"]) == (0, 9)
    assert json.loads(out)["command"] == "benchmark --train"  # analyze speed-accuracy refuses it
    assert (drawn / "speed_r50_fpn_1x_train.png").is_file()


def test_several_configs_are_a_row_each_and_a_failed_one_ends_with_1(tiny_config, tmp_path, capfd):
    configs = [tiny_config, tmp_path / "none.py"]
    file = tmp_path / "rows.json"
    code, out, err = run_benchmark(capfd, "table", *configs, "--images", 1, "--out", file)
    assert code == 1
    assert "2 of 2: none: config" in err
    rows = json.loads(file.read_text())["result"]["rows"]
    assert [row["name"] for row in rows] == ["tiny", "none"]
    assert f"{rows[0]['result']['median_ms']:.1f}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json"], "Missing argument 'CONFIG'"),
        (["c.py", "w.pth", "--depths", "50"], "are for one config"),
        (["--depths", "50", "--train"], "No such option: --train"),
        (["c.py", "--train", "--precision", "bf16"], "No such option: --precision"),
        (["c.py", "w.pth", "--train"], "unexpected extra argument"),
        (["c.py", "--batch-size", "4"], "No such option: --batch-size"),
        (["c.py", "--shape", "800"], "--shape '800' is not a size"),
        (["c.py", "--shape", "8²x64"], "--shape '8²x64' is not a size"),
        (["c.py", "--shape", f"64x{'9' * 5000}"], "is not a size"),
        (["c.py", "--out", __file__], "exists already"),
        (["train", "c.py", "--out", __file__], "exists already"),
        (["table", "--out", __file__], "exists already"),
    ],
)
def test_options_that_a_command_does_not_have(capfd, arguments, message):
    code, _, err = run_benchmark(capfd, *arguments)
    assert code == 2
    assert message in err


def test_the_group_alone_shows_its_commands(capfd):
    code, _, err = run_benchmark(capfd)
    assert code == 2
    assert "fldet benchmark CONFIG is short for fldet benchmark predict CONFIG" in err
