"""Fixtures that many tests share. Real data is reached by path, never copied."""
# ruff: noqa: E402

import atexit
import contextlib
import gc
import io
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Tests run in several processes: threads of their own would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
gc.disable()  # until all tests are found

# Nothing leaves this machine, neither of this process nor of those that it starts.
_OFFLINE = Path(__file__).with_name("offline")
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(_OFFLINE), os.environ.get("PYTHONPATH")))
)
ATTEMPTS = Path(tempfile.mkdtemp(prefix="fldet-tests-"), "attempts")
atexit.register(shutil.rmtree, ATTEMPTS.parent, ignore_errors=True)
os.environ["FLDET_ATTEMPTS"] = str(ATTEMPTS)
runpy.run_path(str(_OFFLINE / "sitecustomize.py"))

import cv2
import numpy as np
import pytest
from exports import export_once
from mmengine.config import Config
from schema_check import check_output

import fldet.engine  # noqa: F401  first: MMDetection with the operators that mmcv may lack
from fldet.cli.main import main
from fldet.config.load import load_config
from fldet.engine import train as engine
from fldet.engine.train import train

ROOT = Path(__file__).resolve().parent.parent
WHEEL_PARTS = (
    *("setup.py", "pyproject.toml", "README.md", "LICENSE"),
    *("requirements", "configs", "fldet"),
)
TEST_DATA = Path(os.environ.get("FLDET_TEST_DATA", ROOT.parent / "shared" / "data"))


def pytest_collection_finish() -> None:
    """Leaves all modules and tests out of the garbage collections that MMEngine asks for."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def no_connections() -> Iterator[None]:
    """Fails a test in which something has looked for another machine, whatever came of it."""
    yield
    if ATTEMPTS.exists():
        text = ATTEMPTS.read_text()
        ATTEMPTS.unlink()
        pytest.fail(f"connections were tried:\n{text}")


def _folder(name: str) -> Path:
    path = TEST_DATA / name
    if not path.is_dir():
        pytest.skip(f"no test data in {path}; set FLDET_TEST_DATA")
    return path


@pytest.fixture(scope="session")
def coco_mini() -> Path:
    """87 + 82 images in the COCO 2017 layout."""
    return _folder("coco_mini")


@pytest.fixture(scope="session")
def installed_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a wheel of this tree installs, to be put on PYTHONPATH."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in WHEEL_PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    command = ("pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q", "-w", str(folder))
    subprocess.run([sys.executable, "-m", *command], cwd=source, check=True, timeout=120)
    zipfile.ZipFile(next(folder.glob("*.whl"))).extractall(folder / "installed")
    return folder / "installed"


@pytest.fixture(scope="module")
def exports_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Has equal networks exported once for all tests of a session that ask for this."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    (shared / "exports").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fldet.inference.export._write_onnx", export_once(shared / "exports"))
        yield


@pytest.fixture(name="fldet")
def fldet_in_this_process(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command line in this process, which has its imports done: seconds less.

    What it prints as JSON must fit docs/schemas.
    What only a process of its own shows (start, signals, threads, exit) has other tests.
    """

    def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        words = list(map(str, arguments))
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(cwd or Path.cwd())
            patch.setattr(sys, "argv", ["fldet", *words])
            with pytest.raises(SystemExit) as stop:
                main()
        printed, said = capfd.readouterr()
        check_output(words, printed)
        return subprocess.CompletedProcess(words, int(stop.value.code or 0), printed, said)

    return run


@pytest.fixture(scope="session")
def bccd() -> Path:
    """Blood cells: 3 classes, COCO and VOC annotations."""
    return _folder("bccd")


@pytest.fixture(scope="session")
def bccd_yolo(bccd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The blood cells in YOLO's layout, made from the COCO files; images are links."""
    root = tmp_path_factory.mktemp("bccd_yolo")
    for split in ("train", "val", "test"):
        content = json.loads((bccd / "annotations" / f"{split}.json").read_text())
        lines: dict[int, str] = {image["id"]: "" for image in content["images"]}
        for one in content["annotations"]:
            x, y, w, h = one["bbox"]
            shares = ((x + w / 2) / 640, (y + h / 2) / 480, w / 640, h / 480)
            row = " ".join(f"{share:.6f}" for share in shares)
            lines[one["image_id"]] += f"{one['category_id'] - 1} {row}\n"
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for image in content["images"]:
            name = image["file_name"]
            (root / "images" / split / name).symlink_to(bccd / "BCCD" / "JPEGImages" / name)
            (root / "labels" / split / f"{Path(name).stem}.txt").write_text(lines[image["id"]])
    (root / "data.yaml").write_text(
        "path: .\ntrain: images/train\nval: images/val\ntest: images/test\n"
        "names:\n  0: RBC\n  1: WBC\n  2: Platelets\n"
    )
    return root


@pytest.fixture(scope="session")
def voc_mini() -> Path:
    """64 images of Pascal VOC 2007, with difficult objects."""
    return _folder("voc_mini")


@pytest.fixture(scope="session")
def masks() -> Path:
    """848 pictures of faces: 24 boxes with a mask to 5 without and 1 that is worn wrongly."""
    return _folder("masks")


@pytest.fixture(scope="session")
def bad_inputs() -> Path:
    """Broken and unusual images and annotation files."""
    return _folder("bad_inputs")


@pytest.fixture(scope="session")
def specification() -> str:
    """The paper's numbers, written down beside the test data by another hand than the configs'."""
    path = TEST_DATA.parent / "paper.md"
    if not path.is_file():
        pytest.skip(f"no specification in {path}")
    return path.read_text(encoding="utf-8")


def write_tiny_coco(root: Path, *, num_images: int = 6, side: int = 64) -> Path:
    """Writes a data set in the COCO 2017 layout: bright squares and dark circles on grey.

    Category ids have gaps and stand in another order than the names; the last image is empty, the
    first has a crowd region.
    """
    rng = np.random.default_rng(0)
    for split in ("train2017", "val2017"):
        (root / split).mkdir(parents=True)
        images, annotations = [], []
        for index in range(num_images):
            image = np.full((side, side, 3), 128, np.uint8)
            images.append(
                {"id": 10 * index + 5, "file_name": f"{index}.png", "width": side, "height": side}
            )
            for kind in (7, 3) if index < num_images - 1 else ():
                size = int(rng.integers(side // 4, side // 2))
                x, y = (int(v) for v in rng.integers(0, side - size, 2))
                if kind == 7:
                    image[y : y + size, x : x + size] = 255
                else:
                    cv2.circle(image, (x + size // 2, y + size // 2), size // 2, (0, 0, 0), -1)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": images[-1]["id"],
                        "category_id": kind,
                        "bbox": [x, y, size, size],
                        "area": size * size,
                        "iscrowd": 0,
                    }
                )
            cv2.imwrite(str(root / split / f"{index}.png"), image)
        annotations[0]["iscrowd"] = 1
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 7, "name": "square"}, {"id": 3, "name": "circle"}],
        }
        target = root / "annotations" / f"instances_{split}.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(content))
    return root


@pytest.fixture(scope="session")
def tiny_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of 64 px for training and for validation; read-only."""
    return write_tiny_coco(tmp_path_factory.mktemp("tiny_coco"))


@pytest.fixture
def roboflow(tiny_coco: Path, tmp_path: Path) -> Path:
    """The tiny data set as Roboflow exports it: category 0 groups the others."""
    for split, name in (("train2017", "train"), ("val2017", "valid")):
        content = json.loads((tiny_coco / "annotations" / f"instances_{split}.json").read_text())
        for category in content["categories"]:
            category["supercategory"] = "shapes"
        content["categories"].insert(0, {"id": 0, "name": "shapes", "supercategory": "none"})
        folder = tmp_path / "roboflow" / name
        folder.mkdir(parents=True)
        (folder / "_annotations.coco.json").write_text(json.dumps(content))
        for image in (tiny_coco / split).iterdir():
            (folder / image.name).symlink_to(image)
    return tmp_path / "roboflow"


TINY_CONFIG = """
_base_ = [
    '{configs}/_base_/models/retinanet_r18_small.py',
    '{configs}/_base_/datasets/coco_detection.py',
    '{configs}/_base_/schedules/schedule_1x.py',
    '{configs}/_base_/default_runtime.py',
]
data_root = '{data}'
model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=8),
    bbox_head=dict(
        in_channels=8,
        feat_channels=8,
        stacked_convs=1,
        norm_cfg=dict(num_groups=2)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='fldet.RandomFlip', prob=0.5),
    dict(type='fldet.PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='fldet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(num_workers=0, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, dataset=dict(pipeline=test_pipeline))
train_cfg = dict(max_iters=4, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=2))
custom_hooks = [dict(type='fldet.ProgressHook', interval=2)]
"""


@pytest.fixture(scope="session")
def write_tiny_config(tiny_coco: Path) -> Callable[[Path], Path]:
    """Writes ``tiny.py`` into a folder: four iterations of a very small RetinaNet."""

    def write(folder: Path) -> Path:
        path = folder / "tiny.py"
        path.write_text(TINY_CONFIG.format(configs=ROOT / "configs", data=tiny_coco))
        return path

    return write


@pytest.fixture
def tiny_config(tmp_path: Path, write_tiny_config: Callable[[Path], Path]) -> Path:
    """A config file for four iterations of a very small RetinaNet on ``tiny_coco``."""
    return write_tiny_config(tmp_path)


@pytest.fixture(scope="session")
def tiny_run(
    tmp_path_factory: pytest.TempPathFactory, write_tiny_config: Callable[[Path], Path]
) -> tuple[Config, Path]:
    """Config and work dir of four iterations; read-only."""
    folder = tmp_path_factory.mktemp("tiny_run")
    changes = ["model.bbox_head.prior_prob=0.2", "default_hooks.logger.interval=2"]
    cfg = load_config(write_tiny_config(folder), changes)
    result = train(cfg, work_dir=folder / "run", device="cpu")
    assert result is not None
    return cfg, result.work_dir


@pytest.fixture
def commands(monkeypatch):
    """Runs commands in this process, which has its imports done; returns them as they come.

    ``stop_at`` is a pair of words at which a SIGTERM comes.
    """
    done = []

    class Process:
        stop_at = None

        def __init__(self, command, *, env, stdin, stdout, stderr):
            words = command[4:]
            done.append(
                (words[0], words[words.index("--work-dir") + 1] if "--work-dir" in words else "")
            )
            if self.stop_at and self.stop_at in " ".join(words):
                Process.stop_at = None
                os.kill(os.getpid(), signal.SIGTERM)
            printed, said = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
            with monkeypatch.context() as patch, contextlib.redirect_stderr(said):
                patch.setattr(sys, "argv", ["fldet", *words])
                patch.setattr(sys, "__stdout__", printed)
                with pytest.raises(SystemExit) as stop:
                    main()
            self.code = int(stop.value.code or 0)
            for text, file in ((printed, stdout), (said, stderr)):
                text.flush()
                file.write(text.buffer.getvalue())

        def poll(self):
            return self.code

        def terminate(self):
            pass

    from fldet.runs import runner

    class Module:
        Popen, DEVNULL = Process, subprocess.DEVNULL

    monkeypatch.setattr(runner, "subprocess", Module)
    monkeypatch.setattr(runner, "TAKE_TURNS", 0.0)
    return done, Process


# --- plug-ins ---

EXAMPLE_PLUGIN = ROOT / "tests" / "example_plugin"


@pytest.fixture
def with_hook(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Registers hooks in the runs that follow."""
    build = engine.build_runner

    def use(*hooks):
        def build_with_hooks(*args):
            runner = build(*args)
            for hook in hooks:
                runner.register_hook(hook)
            return runner

        monkeypatch.setattr(engine, "build_runner", build_with_hooks)

    return use


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of installed packages on the path; what is imported from it is forgotten."""
    from fldet import plugins
    from fldet.config.names import registries

    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    forget = (plugins.installed, plugins._load)
    for cached in forget:
        cached.cache_clear()
    yield folder
    for cached in forget:
        cached.cache_clear()
    packages = {path.name for path in folder.iterdir()}
    for module in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[module]
    for registry in registries().values():
        for tree in (registry, registry.root):
            for scope in packages & tree.children.keys():
                del tree.children[scope]


@pytest.fixture
def install(site: Path) -> Callable[..., None]:
    """Puts into ``site`` what pip would: metadata of version 1.0, and ``package__module=text``."""

    def write(name: str, entry_points: str, **modules: str) -> None:
        metadata = site / f"{name.replace('-', '_')}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(entry_points)
        for names, text in modules.items():
            package, _, module = names.partition("__")
            (site / package).mkdir(exist_ok=True)
            (site / package / "__init__.py").touch()
            (site / package / f"{module}.py").write_text(text)

    return write


@pytest.fixture
def example_plugin(site: Path, install: Callable[..., None]) -> Path:
    """``site`` with the example plug-in as pip would install it, in version 1.0."""
    text = (EXAMPLE_PLUGIN / "pyproject.toml").read_text()
    groups = re.findall(r'^\[project.entry-points."(.+)"\]\n((?:.+\n)+)', text, re.MULTILINE)
    lines = [f"[{group}]\n{points}" for group, points in groups]
    install("fldet-example-plugin", "\n".join(lines).replace('"', ""))
    shutil.copytree(EXAMPLE_PLUGIN / "fldet_example", site / "fldet_example")
    return site
