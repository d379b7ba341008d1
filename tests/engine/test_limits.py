"""Disks that are full or read-only, data that vanish, loader processes that are killed."""

import contextlib
import errno
import gc
import importlib.util
import io
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from torch.utils.data import DataLoader

import fldet
from fldet.checkpoints.paths import newest_checkpoint
from fldet.config.load import load_config
from fldet.engine.test import test as run_test
from fldet.engine.train import train
from fldet.engine.workers import worker_errors
from fldet.errors import (
    CheckpointError,
    DataError,
    FileSystemError,
    WorkerError,
    explained_file_errors,
)
from fldet.inference.predict import predict

ROOT = Path(fldet.__file__).parent.parent
OPTIONS = [
    "train_cfg.max_iters=6",
    "train_cfg.val_interval=4",
    "default_hooks.checkpoint.interval=2",
    "default_hooks.logger.interval=1",
]


def load_tool():
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "kill_and_resume.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


class At(Hook):
    """Does something before an iteration, or before a batch of a validation."""

    def __init__(self, iteration, do, validation=False):
        self.iteration, self.do, self.validation = iteration, do, validation

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if not self.validation and runner.iter + 1 == self.iteration:
            self.do(runner)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if self.validation and batch_idx == 0:
            self.do(runner)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_coco, write_tiny_config):
    """The config, and the folder ``reference`` of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    path = write_tiny_config(folder)
    train(load_config(path, OPTIONS), work_dir=folder / "reference", device="cpu")
    return path, folder


def end_as_the_reference(whole, folder, cfg):
    """Resumes ``folder/killed`` and compares it with the reference."""
    (folder / "reference").symlink_to(whole[1] / "reference")
    train(cfg, work_dir=folder / "killed", resume=True, device="cpu")
    assert load_tool().differences(folder, 6) == []


@pytest.fixture
def mount(tmp_path):
    """Mounts a file system of its own on a folder; skips where the system forbids it."""
    mounted = []

    def make(name, mib):
        folder = tmp_path / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
        try:
            failed = subprocess.run(command, capture_output=True, check=False).returncode
        except FileNotFoundError:
            failed = True
        if failed:
            pytest.skip("no right to mount a file system")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def read_only(tmp_path, request):
    """A folder that may not be written to: by its mode, for root by its file system."""
    if os.geteuid() == 0:
        folder = request.getfixturevalue("mount")("read_only", 1)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    else:
        folder = tmp_path / "read_only"
        folder.mkdir(mode=0o555)
    return folder


def fill(folder):
    """Leaves no room on a disk but for a file ``ballast``."""
    (folder / "ballast").write_bytes(bytes(shutil.disk_usage(folder).free))
    assert shutil.disk_usage(folder).free == 0


WRITES = {
    "checkpoint": (lambda runner: None, CheckpointError, "cannot write .*iter_4.pth: No space"),
    "log": (
        lambda runner: runner.logger.info("a long line " * 500),
        FileSystemError,
        r"\.log: No space left on device",
    ),
    "scalars": (
        lambda runner: runner.visualizer.add_scalar("a" * 6000, 1.0, step=3),
        FileSystemError,
        "killed: No space left on device",
    ),
}


@pytest.mark.parametrize(
    "what",
    ["log", *(pytest.param(what, marks=pytest.mark.slow) for what in ("checkpoint", "scalars"))],
)
def test_a_full_disk_ends_a_training_that_goes_on_later(whole, tmp_path, mount, with_hook, what):
    write, error, message = WRITES[what]
    disk = mount("disk", 16)
    with_hook(At(3, lambda runner: (fill(disk), write(runner))))
    cfg = load_config(whole[0], OPTIONS)
    with pytest.raises(error, match=message) as caught:
        train(cfg, work_dir=disk / "killed", device="cpu")
    assert "--resume" in caught.value.hint
    assert newest_checkpoint(disk / "killed").name == "iter_2.pth"
    assert not [path.name for path in (disk / "killed").glob(".*")]
    (disk / "ballast").unlink()
    with_hook()
    end_as_the_reference(whole, disk, cfg)


def test_a_file_that_grows_past_the_limit_of_the_process(whole, tmp_path, with_hook):
    """Needs no right to mount anything: the system refuses the end of the file."""
    resource = pytest.importorskip("resource", reason="Unix only")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = 2**20
    with_hook(At(3, lambda runner: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write .*iter_4.pth: File too large"):
            train(load_config(whole[0], OPTIONS), work_dir=tmp_path / "run", device="cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert newest_checkpoint(tmp_path / "run").name == "iter_2.pth"
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.parametrize("what", ["pictures", "detections", "result"])
def test_a_full_disk_in_a_test(tiny_run, tmp_path, mount, what):
    cfg, run = tiny_run
    disk = mount("disk", 1)
    folders = {name: tmp_path / name for name in ("pictures", "detections", "result")}
    folders[what] = disk / what
    folders[what].mkdir()
    write = os.replace

    def full_before(source, target):
        """The detections of a tiny test are few: no room from here on."""
        if Path(target).name in ("d.json", "result.json") and disk in Path(target).parents:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))
        write(source, target)

    with pytest.MonkeyPatch.context() as patch:
        if what == "pictures":
            fill(disk)
        else:
            patch.setattr(os, "replace", full_before)
        with pytest.raises(FileSystemError, match=f"{what}/.*: No space left on device"):
            run_test(
                cfg,
                run,
                work_dir=folders["result"],
                show_dir=folders["pictures"],
                out=folders["detections"] / "d.json",
                device="cpu",
            )
    assert not list(folders[what].glob(".*"))


@pytest.mark.parametrize("kind", ["pictures", "jsonl", "coco"])
def test_a_full_disk_in_a_prediction_that_goes_on_later(
    tiny_run, tiny_coco, tmp_path, mount, monkeypatch, kind
):
    disk = mount("disk", 1)
    images, out = str(tiny_coco / "val2017"), disk / "out"
    options = {"formats": (kind,), "score_thr": 0.0, "device": "cpu", "batch_size": 1}
    options["resume"] = True
    if kind == "coco":  # the lines are there, the two files are not
        predict(tiny_run[1], images, out, **{**options, "formats": ("jsonl",)})
    else:
        from fldet.inference import predict as module

        claimed = module._claimed

        @contextmanager
        def claimed_and_then_full(*args):
            with claimed(*args) as folder:
                fill(disk)
                yield folder

        monkeypatch.setattr(module, "_claimed", claimed_and_then_full)
    if kind == "coco":
        fill(disk)
    with pytest.raises(FileSystemError, match=r"out.*: No space left on device") as caught:
        predict(tiny_run[1], images, out, **options)
    assert "--resume" in caught.value.hint
    assert not list(out.glob(".*"))
    monkeypatch.undo()
    (disk / "ballast").unlink()
    again = predict(tiny_run[1], images, out, **options)
    assert again.images + again.already_done == 6
    lines = (out / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 6


def test_a_read_only_folder_is_said_before_anything_is_computed(
    whole, tiny_run, tiny_coco, tmp_path, read_only, monkeypatch
):
    def no_model(*_args):
        raise AssertionError("too late")

    monkeypatch.setattr("fldet.engine.train.build_runner", no_model)
    message = r"read_only/.*: (Read-only file system|Permission denied)"
    cfg = load_config(whole[0], OPTIONS)
    with pytest.raises(FileSystemError, match=message) as caught:
        train(cfg, work_dir=read_only / "run", device="cpu")
    assert "--work-dir" in caught.value.hint
    tests = [{"show_dir": read_only / "p"}, {"out": read_only / "d" / "d.json"}]
    monkeypatch.setattr("fldet.engine.test.build_runner", no_model)
    for options in tests:
        with pytest.raises(FileSystemError, match=message):
            run_test(tiny_run[0], tiny_run[1], work_dir=tmp_path, device="cpu", **options)
    with pytest.raises(FileSystemError, match=message):
        predict(tiny_run[1], str(tiny_coco / "val2017"), read_only / "out", device="cpu")


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EROFS, "Read-only"), (errno.EFBIG, "too large")]
)
def test_errors_of_the_file_system_are_explained_and_others_are_not(number, kind):
    with pytest.raises(FileSystemError, match=f"^a/b: .*{kind}"), explained_file_errors("a/b"):
        raise OSError(number, os.strerror(number))
    with pytest.raises(FileNotFoundError), explained_file_errors("a/b"):
        raise FileNotFoundError(errno.ENOENT, "no", "c")


def own_data(tiny_coco, tmp_path):
    """Returns a copy of the data that a test may delete, and the options that name it."""
    data = Path(shutil.copytree(tiny_coco, tmp_path / "data"))
    return data, [*OPTIONS, f"data_root={data}", "train_dataloader.num_workers=1"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", "all 6 images of .* are broken"),
        pytest.param("val", r"0\.png: No such file", marks=pytest.mark.slow),
    ],
)
def test_images_deleted_in_mid_run(whole, tiny_coco, tmp_path, with_hook, split, message):
    data, options = own_data(tiny_coco, tmp_path)
    folder = data / f"{split}2017"
    with_hook(At(3, lambda runner: folder.rename(data / "away")))
    cfg = load_config(whole[0], options)
    with pytest.raises(DataError, match=message):
        train(cfg, work_dir=tmp_path / "killed", device="cpu")
    with_hook()
    (data / "away").rename(folder)
    end_as_the_reference(whole, tmp_path, cfg)


def test_annotations_deleted_in_mid_run_are_not_missed(whole, tiny_coco, tmp_path, with_hook):
    """They were read at the start; a resumed run says what is missing."""
    data, options = own_data(tiny_coco, tmp_path)
    with_hook(At(3, lambda runner: shutil.rmtree(data / "annotations")))
    cfg = load_config(whole[0], options)
    assert train(cfg, work_dir=tmp_path / "run", device="cpu").iterations == 6
    with pytest.raises(DataError, match=r"instances_train2017\.json"):
        train(cfg, work_dir=tmp_path / "run2", device="cpu")


@pytest.mark.parametrize("phase", ["train", pytest.param("val", marks=pytest.mark.slow)])
def test_a_killed_loader_process(whole, tmp_path, with_hook, phase):
    others = {child.pid for child in multiprocessing.active_children()}  # of other tests

    def kill(runner):
        loaders = {child.pid for child in multiprocessing.active_children()} - others
        os.kill(max(loaders), signal.SIGKILL)
        time.sleep(0.2)  # the system tells this process, in which torch then raises

    options = [*OPTIONS, f"{phase}_dataloader.num_workers=2"]
    cfg = load_config(whole[0], options)
    with_hook(At(5, kill, validation=phase == "val"))
    started = time.monotonic()
    with pytest.raises(WorkerError, match=r"a loader process was lost: process \d+ is k") as caught:
        train(cfg, work_dir=tmp_path / "killed", device="cpu")
    assert time.monotonic() - started < 60
    for word in ("memory", "/dev/shm", "num_workers", "--resume"):
        assert word in caught.value.hint
    assert newest_checkpoint(tmp_path / "killed").name == "iter_4.pth"
    del caught
    with_hook()
    end_as_the_reference(whole, tmp_path, cfg)


class NoRoom:
    """Cannot be handed to another process, as a batch where shared memory is full."""

    def __reduce__(self):
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left (28)"
        )


def collate_nothing(_samples):
    return NoRoom()


def test_full_shared_memory_is_no_endless_wait(capfd):
    loader = DataLoader([1, 2], num_workers=1, collate_fn=collate_nothing, timeout=30)
    with pytest.raises(WorkerError, match="a loader process was lost") as caught, worker_errors():
        list(loader)
    assert "--shm-size" in caught.value.hint
    assert "cannot hand over a batch: unable to allocate shared memory" in capfd.readouterr().err


def test_too_many_open_files_for_the_loaders():
    text = "Too many open files. Communication with the workers is no longer possible. Please"
    with pytest.raises(WorkerError, match="lost: Too many open files") as caught, worker_errors():
        raise RuntimeError(text)
    assert "ulimit -n" in caught.value.hint


def test_other_errors_pass_as_they_are():
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2$"), worker_errors():
        raise RuntimeError("mat1 and mat2")


def test_nothing_is_left_open_after_a_run(whole, tmp_path):
    """Loader processes are joined, files are closed."""
    cfg = load_config(
        whole[0],
        [*OPTIONS, "train_dataloader.num_workers=1", "val_dataloader.num_workers=1"]
        + [f"{phase}_dataloader.persistent_workers=True" for phase in ("train", "val")],
    )

    def logs():
        links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        return [os.readlink(link) for link in links if os.path.lexists(link)]

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("Linux only")
    gc.collect()
    before = set(multiprocessing.active_children())
    train(cfg, work_dir=tmp_path / "run", device="cpu")
    assert set(multiprocessing.active_children()) <= before
    assert not [name for name in logs() if str(tmp_path) in name]
    handlers = logging.getLogger("fldet").handlers
    assert not [one for one in handlers if isinstance(one, logging.FileHandler)]


def test_no_connection_unless_weights_are_to_be_downloaded(whole, tiny_coco, tmp_path, monkeypatch):
    tried = []

    def refuse(self, address):
        tried.append(address)
        raise OSError(errno.ENETUNREACH, "the network is forbidden here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **_: refuse(None, args[0]))
    cfg = load_config(whole[0], [*OPTIONS, "train_cfg.max_iters=2"])
    work_dir = train(cfg, work_dir=tmp_path / "run", device="cpu").work_dir
    run_test(cfg, work_dir, work_dir=tmp_path / "test", device="cpu")
    predict(work_dir, str(tiny_coco / "val2017"), tmp_path / "out", device="cpu")
    assert tried == []
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "no_cache"))
    weights = "model.backbone.init_cfg={'type':'Pretrained','checkpoint':'torchvision://resnet18'}"
    cfg = load_config(whole[0], [*OPTIONS, weights])
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        pytest.raises(CheckpointError, match="cannot download the pretrained weights") as caught,
    ):
        train(cfg, work_dir=tmp_path / "other", device="cpu")
    assert tried == ["download.pytorch.org"]
    assert "Downloading: " in said.getvalue()
    assert "init_cfg" in caught.value.hint


def test_the_lines_of_a_run_without_a_checkpoint_go(tmp_path):
    from fldet.engine.start import Start, remove_leftovers

    log = tmp_path / "20260101_000000" / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    log.write_text('{"lr": 0.1, "step": 1}\n{"lr": 0.1, "step": 2}\n')
    remove_leftovers(tmp_path, Start(), resume=False)  # another run, whose log stays
    assert log.read_text().count("step") == 2
    remove_leftovers(tmp_path, Start(), resume=True)
    assert log.read_text() == ""


@pytest.mark.parametrize(
    ("steps", "fine"), [([1, 2, 3], True), ([1, 1, 2, 3], False), ([1, 3], False)]
)
def test_the_tool_finds_lines_that_are_lost_or_doubled(steps, fine):
    lines = [{"lr": 0.1, "step": step} for step in steps] + [{"coco/AP": 0.5, "step": 3}]
    assert (load_tool().lost_or_doubled("killed", lines, 3) == []) is fine
    assert load_tool().lost_or_doubled("killed", [*lines, lines[-1]], 3)
