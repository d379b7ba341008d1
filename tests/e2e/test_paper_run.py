"""A table of the paper in a tiny tier: run, killed, run again, reported."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fldet.cli.main import app

TIER = """
'''Two classes on images of 64 pixels.

Minutes: 0.1 a run.
'''
data_root = '{data}'
model = dict(
    backbone=dict(depth=18, base_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=8, norm_cfg=dict(type='BN')),
    bbox_head=dict(
        in_channels=8,
        feat_channels=8,
        stacked_convs=1,
        norm_cfg=dict(type='GN', num_groups=2),
        anchor_generator=dict(sizes=[24, 48, 96, 192, 384])))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='fldet.RandomFlip', prob=0.5),
    dict(type='fldet.PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.0),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='fldet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(num_workers=0, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, dataset=dict(pipeline=test_pipeline))
train_cfg = dict(max_iters=60, val_interval=60)
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=20)]
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.003))
auto_scale_lr = dict(enable=False)
default_hooks = dict(checkpoint=dict(interval=5), logger=dict(interval=1))
custom_hooks = [dict(type='fldet.ProgressHook', interval=1)]
"""
ROWS = ("CE", "FL")


@pytest.fixture
def tier(tmp_path, tiny_coco):
    path = tmp_path / "tiny.py"
    path.write_text(TIER.format(data=tiny_coco))
    return path


def start(tier, work_dir, *arguments):
    command = [sys.executable, "-m", "fldet", "paper", "run", "table3", "--rows", *ROWS]
    command += ["--tier", str(tier), "--work-dir", str(work_dir), "--device", "cpu", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(process):
    text, _ = process.communicate(timeout=240)
    return process.returncode, text


def wait_for(path, text, seconds=120):
    end = time.monotonic() + seconds
    while not path.is_file() or text not in path.read_text():
        assert time.monotonic() < end, f"no {text!r} in {path}"
        time.sleep(0.05)


def processes_of(work_dir):
    """Command lines of everything that works in a folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_text().replace("\0", " ")
        except OSError:
            continue
        if str(work_dir) in line:
            found.append(line)
    return found


def report(tier, work_dir, capfd):
    arguments = ["paper", "report", "table3", "--tier", str(tier), "--work-dir", str(work_dir)]
    assert CliRunner().invoke(app, [*arguments, "--json"]).exit_code == 0
    return json.loads(capfd.readouterr().out)["result"]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_runner_killed_twice_and_started_again_gives_the_same_report(tier, tmp_path, capfd):
    reference, killed = tmp_path / "reference", tmp_path / "killed"
    code, text = finish(start(tier, reference, "--jobs", "2"))
    assert code == 0, text
    assert "2 of 2 runs done" in text

    # all processes at once
    process = start(tier, killed, "--jobs", "2")
    wait_for(killed / "tiny" / "ce_alpha_0.75" / "seed_0" / "log.txt", "iter 12/60")
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    assert processes_of(killed) == []
    # the runner alone: its trainings save and end by themselves
    process = start(tier, killed, "--jobs", "2")
    log = killed / "tiny" / "fl_gamma_2" / "seed_0" / "log.txt"
    wait_for(log, "iter 40/60")
    process.kill()
    finish(process)
    code, text = finish(start(tier, killed, "--jobs", "2"))
    assert code == 0, text
    assert processes_of(killed) == []
    assert "resumed after iteration" in log.read_text()
    assert [path.name for path in log.parent.glob("*.pth")] == ["iter_60.pth"]

    expected, found = report(tier, reference, capfd), report(tier, killed, capfd)
    for one in (expected, found):
        del one["seconds"], one["tables"][0]["seconds"]
    assert found == expected
    rows = {row["name"]: row for row in found["tables"][0]["rows"]}
    assert [len(rows[name]["ours"]["values"]) for name in ROWS] == [1, 1]
    assert rows["FL* gamma 4 beta 0"]["ours"]["values"] == []
    for name in ("tiny.md", "tiny.json", "tiny_table3.png", "tiny_table3.svg"):
        assert (reference / "tiny" / "report" / name).stat().st_size > 0
