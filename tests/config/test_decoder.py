"""The line ``decoder``: which pipelines it goes into, what comes out, and that boxes stay."""

import json

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image

from fldet.config.decoder import with_decoder
from fldet.config.load import format_config, load_config
from fldet.config.prepare import prepare_config
from fldet.data.slicing.views import Views, pipeline_of_views
from fldet.engine.train import train
from fldet.errors import BrokenImageError, ConfigError, UsageError
from fldet.inference.detector import Detector
from fldet.inference.predict import predict
from fldet.registry import TRANSFORMS

LOAD, BOXES = {"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}
PACK = {"type": "fldet.PackDetInputs"}


def resize(width, height, **options):
    return {"type": "Resize", "scale": (width, height), "keep_ratio": True, **options}


def picture(size, seed=0):
    """Returns smooth colours, (height, width, 3): an average of pixels is like them."""
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 7, 3)).astype(np.float32)
    return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def write(path, size, orientation=1):
    """Writes a JPEG of a stored (width, height)."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = picture(size)[:, :, ::-1]
    Image.fromarray(pixels).save(path, quality=98, exif=exif.tobytes())
    return path


def run(steps, path, **results):
    init_default_scope("mmdet")
    return Compose([TRANSFORMS.build(step) for step in steps])({"img_path": str(path), **results})


def decoded(path, largest, **options):
    step = {"type": "fldet.LoadImageFromFile", "largest": largest, **options}
    return run([step], path)


@pytest.mark.parametrize(
    ("size", "largest", "part"),
    [
        ((640, 480), (333, 200), 2),
        ((640, 480), (320, 240), 2),
        ((640, 480), (321, 241), 1),  # never smaller than what comes next
        ((640, 480), (321, 240), 2),  # the shorter side decides
        ((480, 640), (333, 200), 2),
        ((640, 480), (160, 120), 4),
        ((1600, 1200), (160, 120), 8),
        ((4000, 300), (160, 160), 8),
        ((640, 480), (1333, 800), 1),
        ((641, 483), (320, 240), 2),
        ((9, 10), (1, 1), 1),  # both would have two pixels: which way it lies could not be told
    ],
)
def test_the_part_is_the_smallest_that_is_large_enough(tmp_path, size, largest, part):
    found = decoded(write(tmp_path / "a.jpg", size), largest)
    width, height = size
    assert found["img"].shape == (-(-height // part), -(-width // part), 3)
    assert found["ori_shape"] == found["img_shape"] == (height, width)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.jpg", {"color_type": "grayscale"}),
        ("a.jpg", {"color_type": "color_ignore_orientation"}),
        ("a.jpg", {"imdecode_backend": "pillow"}),
    ],
)
def test_what_cannot_be_decoded_in_part_is_decoded_in_full(tmp_path, name, options):
    cv2.imwrite(str(tmp_path / name), picture((640, 480)))
    assert decoded(tmp_path / name, (160, 120), **options)["img"].shape[:2] == (480, 640)


def test_a_tile_is_cut_from_the_whole(tmp_path):
    path = write(tmp_path / "a.jpg", (640, 480))
    step = {"type": "fldet.LoadImageFromFile", "largest": (50, 50)}
    tile = {"tile": (100, 50, 300, 150), "picture": (640, 480)}
    assert run([step], path, **tile)["img"].shape[:2] == (100, 200)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "last",
    [
        resize(160, 120),
        resize(161, 97),
        resize(150, 110, keep_ratio=False),
        {
            "type": "RandomResize",
            "scale": (120, 90),
            "ratio_range": (0.7, 1.3),
            "keep_ratio": True,
        },
        {"type": "RandomResize", "scale": [(160, 90), (160, 120)], "keep_ratio": True},
        {"type": "RandomChoiceResize", "scales": [(160, 90), (160, 120)], "keep_ratio": True},
    ],
)
def test_all_but_the_pixels_is_as_without(tmp_path, orientation, last):
    """Sizes, factors, flips and boxes are equal; pixels are nearly so."""
    path = write(tmp_path / "a.jpg", (645, 483), orientation)
    flip = {"type": "RandomFlip", "prob": 1.0}
    steps = [LOAD, BOXES, last, flip, PACK]
    box = {"bbox": [10.0, 20.0, 200.0, 300.0], "bbox_label": 0, "ignore_flag": 0}
    width, height = (483, 645) if orientation >= 5 else (645, 483)
    results = []
    for decoder in ("exact", "fast"):
        np.random.seed(3)
        given = {"img_id": 0, "width": width, "height": height, "instances": [dict(box)]}
        results.append(run(with_decoder(steps, decoder), path, **given))
    exact, fast = results
    one, other = (packed["data_samples"] for packed in results)
    assert one.img_shape == other.img_shape == tuple(exact["inputs"].shape[1:])
    assert fast["inputs"].shape == exact["inputs"].shape
    assert one.ori_shape == other.ori_shape == (height, width)
    assert one.scale_factor == pytest.approx(other.scale_factor)
    boxes = [sample.gt_instances.bboxes.tensor.numpy() for sample in (one, other)]
    np.testing.assert_allclose(*boxes, rtol=1e-6)
    difference = (exact["inputs"].float() - fast["inputs"].float()).abs()
    assert difference.mean() < 2.5
    assert not np.array_equal(exact["inputs"], fast["inputs"])


def test_a_size_that_is_not_the_annotated_one_is_still_an_error(tmp_path):
    path = write(tmp_path / "a.jpg", (640, 480))
    steps = with_decoder([LOAD, resize(160, 120)], "fast")
    with pytest.raises(BrokenImageError, match="640 x 480 pixels, its annotation says 320 x 240"):
        run(steps, path, width=320, height=240)


@pytest.mark.parametrize(
    "pipeline",
    [
        [],
        [LOAD],
        [LOAD, BOXES, PACK],
        [LOAD, BOXES, {"type": "RandomCrop", "crop_size": (9, 9)}, resize(9, 9)],
        [LOAD, {"type": "Resize", "scale_factor": 0.5}],
        [LOAD, {"type": "Resize", "scale": 100}],
        [LOAD, BOXES, {"type": "RandomFlip", "prob": 0.5}, resize(9, 9)],
        [LOAD, {"type": "RandomChoiceResize", "scales": [(9, 9)], "resize_type": "FixShapeResize"}],
        [LOAD, {"type": "mmcv.Resize", "scale": (9, 9)}],
        [LOAD, {"type": "Pad", "size_divisor": 32}, resize(9, 9)],
        [{"type": "LoadImageFromNDArray"}, resize(9, 9)],
        [resize(9, 9), LOAD],
    ],
)
def test_a_pipeline_that_needs_all_pixels_is_refused(pipeline):
    with pytest.raises(ConfigError, match="decoder = 'fast': this pipeline has"):
        with_decoder(pipeline, "fast")
    assert with_decoder(pipeline, "exact") == pipeline


@pytest.mark.parametrize(
    ("last", "largest"),
    [
        (resize(1333, 800), (1333, 800)),
        (resize(800, 1333), (1333, 800)),
        ({"type": "RandomResize", "scale": (100, 50), "ratio_range": (0.5, 1.11)}, (112, 56)),
        ({"type": "RandomResize", "scale": [(400, 100), (100, 400)]}, (400, 400)),
        ({"type": "RandomResize", "scale": [(1333, 640), (1333, 800)]}, (1333, 800)),
        ({"type": "RandomChoiceResize", "scales": [(400, 100), (100, 400)]}, (400, 100)),
    ],
)
def test_the_largest_size_that_can_be_drawn(last, largest):
    assert with_decoder([LOAD, last], "fast")[0]["largest"] == largest


@pytest.mark.parametrize("overrides", [["decoder=exact"], ["decoder=None"]])
def test_a_saved_config_can_take_it_back(tiny_config, tmp_path, resizing, overrides):
    saved = tmp_path / "saved.py"
    resolved = prepare_config(load_config(tiny_config, resizing), phases=("train", "val"))
    saved.write_text(format_config(resolved))
    again = prepare_config(load_config(saved, overrides), phases=("train", "val"))
    for name in ("train_dataloader", "val_dataloader"):
        assert "largest" not in again[name].dataset.pipeline[0]


def test_another_scale_of_a_saved_config_has_another_largest(tiny_config, tmp_path, resizing):
    """With the line, and without as in a packaged model."""
    resolved = prepare_config(load_config(tiny_config, resizing), phases=("train", "val"))
    for drop in (False, True):
        saved = tmp_path / f"saved_{drop}.py"
        if drop:
            resolved.pop("decoder")
        saved.write_text(format_config(resolved))
        changes = {"val_dataloader.dataset.pipeline.1.scale": (400, 400)}
        again = prepare_config(load_config(saved, changes), phases=("train", "val"))
        assert again.val_dataloader.dataset.pipeline[0]["largest"] == (400, 400)


@pytest.mark.parametrize("largest", [(0, 0), "abc", (96,), -1, (-5, 5)])
def test_a_largest_that_is_none_is_refused(largest):
    with pytest.raises(ConfigError, match="largest of LoadImage"):
        TRANSFORMS.build({"type": "fldet.LoadImageFromFile", "largest": largest})


def test_exact_takes_it_back_and_so_do_views():
    pipeline = [LOAD, BOXES, resize(9, 9), PACK]
    fast = with_decoder(pipeline, "fast")
    assert with_decoder(fast, "fast") == fast
    for steps in (with_decoder(fast, "exact"), pipeline_of_views(fast, Views(size=64))):
        assert "largest" not in steps[0]
        assert "keep_ratio" not in steps[0]
    with pytest.raises(UsageError, match="unknown decoder 'quick'"):
        with_decoder(pipeline, "quick")


@pytest.fixture
def resizing(tiny_config):
    """Changes by which the training images of the tiny config are resized, and decoded fast."""
    steps = list(load_config(tiny_config).train_dataloader.dataset.pipeline)
    return {
        "train_dataloader.dataset.pipeline": [*steps[:2], resize(30, 20), *steps[2:]],
        "decoder": "fast",
    }


def test_the_line_reaches_all_data_sets_and_stays_when_saved(tiny_config, tmp_path, resizing):
    cfg = load_config(tiny_config, {**resizing, "augment": "small"})
    resolved = prepare_config(cfg, phases=("train", "val", "test"))
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        assert resolved[name].dataset.pipeline[0].largest
    saved = tmp_path / "saved.py"
    saved.write_text(format_config(resolved))
    again = prepare_config(load_config(saved), phases=("train", "val"))
    one, other = (
        json.dumps(cfg.train_dataloader.dataset.pipeline, sort_keys=True)
        for cfg in (again, resolved)
    )
    assert one == other
    with pytest.raises(ConfigError, match="decoder is 'quick'"):
        prepare_config(load_config(tiny_config, ["decoder=quick"]), phases=())


@pytest.mark.slow
def test_a_model_trained_so_predicts_so(tiny_config, tmp_path, resizing):
    cfg = load_config(tiny_config, resizing)
    run_dir = train(cfg, work_dir=tmp_path / "run", device="cpu").work_dir
    detector = Detector.load(run_dir, device="cpu")
    assert detector.pipeline[0]["largest"]
    detector.use_decoder("exact")
    assert "largest" not in detector.pipeline[0]


def test_a_detector_looks_at_a_part(tiny_run, tmp_path):
    """Boxes are in pixels of the file; those of slices come from all of its pixels."""
    write(tmp_path / "a.jpg", (640, 480))
    detector = Detector.load(tiny_run[1], device="cpu")
    exact = detector.prepare(tmp_path / "a.jpg")
    detector.use_decoder("fast")
    fast = detector.prepare(tmp_path / "a.jpg")
    assert (fast.height, fast.width) == (480, 640)
    assert fast.inputs.shape == exact.inputs.shape
    assert fast.sample.scale_factor == exact.sample.scale_factor
    assert detector.read(tmp_path / "a.jpg")["img"].shape[0] < 480
    views = detector.with_views(320)
    assert views.detector.read(tmp_path / "a.jpg")["img"].shape[0] == 480
    options = {"formats": ["jsonl"], "device": "cpu", "decoder": "fast"}
    with pytest.raises(UsageError, match="--decoder fast leaves out"):
        predict(tiny_run[1], str(tmp_path), tmp_path / "out", views=Views(size=64), **options)
    assert predict(tiny_run[1], str(tmp_path), tmp_path / "out", **options).images == 1
    options["decoder"] = None
    with pytest.raises(UsageError, match="decoder"):
        predict(tiny_run[1], str(tmp_path), tmp_path / "out", resume=True, **options)
