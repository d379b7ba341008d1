"""Two processes, started in every way there is: one that fails, restarts, and the same weights."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import fldet
from fldet.config.load import load_config
from fldet.engine.test import test as run_test

ROOT = Path(fldet.__file__).parent.parent
TORCHRUN = ("torch.distributed.run", "--nproc-per-node")
pytestmark = [pytest.mark.e2e, pytest.mark.slow]

# Writes down which images are seen; ends the process 1 of the first attempt after iteration 5.
HOOK = """
import os, signal, time
from pathlib import Path
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class SpyHook(Hook):
    priority = 'VERY_HIGH'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        with open(Path(runner.work_dir, f'seen_{get_rank()}.txt'), 'a') as file:
            for sample in data_batch['data_samples']:
                print(sample.img_id, file=file)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        end, attempt = os.environ.get('END'), os.environ.get('TORCHELASTIC_RESTART_COUNT')
        if end and get_rank() == 1 and runner.iter + 1 == 5 and attempt == '0':
            Path(runner.work_dir, 'time').write_text(str(time.time()))
            if end == 'kill':
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError('a defect in one process')
"""
CONFIG = """
_base_ = 'tiny.py'
custom_imports = dict(imports=['fldet', 'spy'], allow_failed_imports=False)
custom_hooks = [dict(type='fldet.ProgressHook', interval=1), dict(type='SpyHook')]
train_cfg = dict(max_iters=8, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
"""


def load_tool():
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "kill_and_resume.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def start(config, work_dir, *options, module=("fldet",), **variables):
    """Starts ``fldet train``, by another module where one is given."""
    through = (*module, "-m", "fldet") if module != ("fldet",) else module
    command = [sys.executable, "-m", *through, "train", str(config), "--device", "cpu"]
    path = os.pathsep.join([str(config.parent), str(ROOT)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **variables}
    return subprocess.Popen(
        [*command, "--work-dir", str(work_dir), *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    """Returns exit code and output."""
    text, _ = process.communicate(timeout=180)
    return process.returncode, text


@pytest.fixture(scope="module")
def reference(tmp_path_factory, write_tiny_config):
    """A config, and the work dir of eight iterations that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("many")
    write_tiny_config(folder)
    (folder / "spy.py").write_text(HOOK)
    config = folder / "spied.py"
    config.write_text(CONFIG)
    code, text = finish(start(config, folder / "reference", "--gpus", "2"))
    assert code == 0, text
    return config, folder / "reference"


@pytest.fixture
def differences(reference, tmp_path):
    """Compares ``killed`` in ``tmp_path`` with the reference: weights, optimizer, scores, log."""
    (tmp_path / "reference").symlink_to(reference[1])
    return lambda: load_tool().differences(tmp_path, 8)


def test_torchrun_replaces_a_process_that_was_killed(reference, tmp_path, differences):
    module = (*TORCHRUN, "2", "--max-restarts", "1")
    code, text = finish(start(reference[0], tmp_path / "killed", module=module, END="kill"))
    assert code == 0, text
    assert text.count("restart 1 of at most 1 by torchrun") == 1
    assert text.count("resumed after iteration 4 of 8") == 1
    assert differences() == []


def test_a_defect_is_told_once_and_slurm_goes_on(reference, tmp_path, differences):
    code, text = finish(start(reference[0], tmp_path / "killed", "--gpus", "2", END="raise"))
    seconds = time.time() - float((tmp_path / "killed" / "time").read_text())
    assert code == 1, text
    assert seconds < 60
    assert text.count("Traceback") == 1
    assert "process 1: Traceback" in text
    assert text.endswith("ValueError: a defect in one process\n")
    variables = {"SLURM_NTASKS": "2", "SLURM_NODELIST": "gpu[07-08]", "SLURM_NNODES": "1"}
    variables["SLURM_JOB_ID"] = str(os.getpid())  # decides on the port
    options = ("--resume", "--launcher", "slurm")
    tasks = [
        start(
            *(reference[0], tmp_path / "killed", *options),
            **variables,
            SLURM_PROCID=number,
            SLURM_LOCALID=number,
        )
        for number in "01"
    ]
    for code, text in map(finish, tasks):
        assert code == 0, text
    assert differences() == []


def test_two_launchers_are_one_run(reference, tmp_path, differences):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    meeting = ("--rdzv-backend", "c10d", "--rdzv-endpoint", address, "--rdzv-id", "two")
    nodes = [
        start(
            *(reference[0], tmp_path / "killed"),
            module=(*TORCHRUN, "1", "--nnodes", "2", "--node-rank", rank, *meeting),
        )
        for rank in "01"
    ]
    for code, text in map(finish, nodes):
        assert code == 0, text
    assert differences() == []
    # by turns the processes take the images of one epoch after the other
    seen = [(tmp_path / "killed" / f"seen_{rank}.txt").read_text().split() for rank in "01"]
    order = [image for pair in zip(*seen, strict=True) for image in pair]
    assert len(order) == 8 * 4
    epochs = [sorted(order[first : first + 6]) for first in range(0, 30, 6)]
    assert epochs == [sorted(["5", "15", "25", "35", "45", "55"])] * 5


# Spoils the second batch of a step in one process; each saves its weights at the end.
SPOIL_HOOK = """
from pathlib import Path
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class SpoilHook(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if get_rank() == 1 and runner.iter + 1 == 2:
            data_batch['inputs'][0] = data_batch['inputs'][0].float() * float('inf')

    def after_train(self, runner):
        torch.save(runner.model.module.state_dict(), Path(runner.work_dir, f'{get_rank()}.pth'))
"""
SPOILED = """
_base_ = 'tiny.py'
custom_imports = dict(imports=['fldet', 'spoil'], allow_failed_imports=False)
custom_hooks = [dict(type='SpoilHook')]
train_cfg = dict(max_iters=2)
val_dataloader = val_cfg = val_evaluator = None
accumulate = 2
skip_nonfinite = 1
optim_wrapper = dict(optimizer=dict(lr=1.0))
"""


def test_a_step_that_ends_with_a_batch_passed_over_is_the_same_in_both(tiny_config, tmp_path):
    (tmp_path / "spoil.py").write_text(SPOIL_HOOK)
    config = tmp_path / "spoiled.py"
    config.write_text(SPOILED)
    code, text = finish(start(config, tmp_path / "run", "--gpus", "2"))
    assert code == 0, text
    assert "batch passed over (1 of at most 1)" in text
    one, other = (torch.load(tmp_path / "run" / f"{rank}.pth") for rank in (0, 1))
    name = "bbox_head.retina_cls.weight"
    assert torch.equal(one[name], other[name])
    assert float(one["bbox_head.retina_cls.bias"].std()) > 0  # a step was done


# Batch norms that learn their statistics, and a divisor of the loss that is a moving average; ends
# the run by a signal to one process in an iteration, or in the validation after it. The other one
# is slow to say what it saved: torchrun asks it to end before.
BUFFERS_HOOK = """
import os, signal, time
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from fldet.cli import output

def say_late(text, say=output.note):
    time.sleep(3 * (os.environ.get('RANK') == '0'))
    say(text)

output.note = say_late

@HOOKS.register_module()
class EndHook(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.end(f'{runner.iter + 1}')

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.end(f'validation {runner.iter}')

    def end(self, place):
        if os.environ.get('END') == place and get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
"""
BUFFERS = """
_base_ = 'tiny.py'
custom_imports = dict(imports=['fldet', 'end'], allow_failed_imports=False)
custom_hooks = [dict(type='EndHook')]
model = dict(
    backbone=dict(norm_eval=False, norm_cfg=dict(type='BN', requires_grad=True)),
    bbox_head=dict(normalizer=dict(_delete_=True, type='fldet.MovingAverageCount', initial=1.0)),
    test_cfg=dict(score_thr=0.0))
train_cfg = dict(max_iters=8, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
val_loss = True
"""


@pytest.fixture(scope="module")
def with_buffers(tmp_path_factory, write_tiny_config):
    """A config of a model with buffers that a training changes, and a run of two processes."""
    folder = tmp_path_factory.mktemp("buffers")
    write_tiny_config(folder)
    (folder / "end.py").write_text(BUFFERS_HOOK)
    config = folder / "buffers.py"
    config.write_text(BUFFERS)
    code, text = finish(start(config, folder / "reference", "--gpus", "2"))
    assert code == 0, text
    return config, folder / "reference"


def test_two_processes_validate_the_model_that_is_saved(with_buffers, tmp_path, monkeypatch):
    config, work_dir = with_buffers
    monkeypatch.syspath_prepend(config.parent)
    cfg = load_config(config)
    tested = run_test(cfg, work_dir / "iter_8.pth", work_dir=tmp_path, device="cpu")
    log = next(work_dir.glob("*/vis_data/scalars.json")).read_text().splitlines()
    logged = json.loads(log[-1])
    figures = {name: value for name, value in tested.figures.summary.items() if value == value}
    assert figures["AR100"] > 0
    assert {name: logged[f"coco/{name}"] for name in figures} == figures


@pytest.mark.parametrize("place", ["3", "validation 4"])
def test_a_stop_and_the_buffers_of_two_processes(with_buffers, tmp_path, place):
    config, work_dir = with_buffers
    (tmp_path / "reference").symlink_to(work_dir)
    code, text = finish(start(config, tmp_path / "killed", "--gpus", "2", END=place))
    assert code == 143, text
    again = text.partition("go on with: ")[2].splitlines()[0]
    assert again.endswith("--device cpu --gpus 2 --resume")
    code, text = finish(start(config, tmp_path / "killed", "--gpus", "2", "--resume"))
    assert code == 0, text
    assert load_tool().differences(tmp_path, 8) == []
