import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import fldet
from fldet.config.decoder import with_decoder
from fldet.errors import CheckpointError, DataError, UsageError
from fldet.inference.detector import Detector
from fldet.inference.exported import ExportedDetector, as_text
from fldet.inference.onnx import OnnxDetector, Preparation, load_plain

DESCRIPTION = {
    "post_process": "inside",
    "classes": ["a", "b"],
    "score_thr": 0.05,
    "pipeline": [
        {"type": "fldet.LoadImageFromFile"},
        {"type": "Resize", "scale": (96, 64), "keep_ratio": True},
        {"type": "LoadAnnotations", "with_bbox": True},
        {"type": "fldet.PackDetInputs", "meta_keys": ("img_shape", "scale_factor")},
    ],
    "data_preprocessor": {
        "type": "fldet.DetDataPreprocessor",
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "bgr_to_rgb": True,
        "pad_size_divisor": 32,
    },
}


def changed(part, change):
    """Returns the description with another resizing, or another preparation of pixels."""
    load, resize, *others = DESCRIPTION["pipeline"]
    if part in ("resize", "decoder"):
        steps = [load, {**resize, **change}, *others]
        return {
            **DESCRIPTION,
            "pipeline": with_decoder(steps, "fast") if part == "decoder" else steps,
        }
    if part == "load":
        steps = with_decoder(DESCRIPTION["pipeline"], "fast")
        return {**DESCRIPTION, "pipeline": [{**steps[0], **change}, *steps[1:]]}
    return {**DESCRIPTION, part: {**DESCRIPTION[part], **change}}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Files of several kinds and sizes; one is turned by its EXIF data, two share a shape."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(1)
    sizes = [(64, 96), (64, 96), (480, 640), (33, 200), (90, 31), (7, 5)]
    for number, (height, width) in enumerate(sizes):
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.{'jpg' if number % 2 else 'png'}"), pixels)
    cv2.imwrite(str(folder / "grey.png"), rng.integers(0, 255, (50, 70), dtype=np.uint8))
    from PIL import Image

    turned = Image.fromarray(rng.integers(0, 255, (40, 70, 3), dtype=np.uint8))
    turned.getexif()[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=turned.getexif())
    large = rng.integers(0, 255, (300, 410, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "large.jpg"), large)
    turned = Image.fromarray(large)
    turned.getexif()[0x0112] = 8
    turned.save(folder / "large_turned.jpg", exif=turned.getexif())
    return sorted(folder.iterdir())


def found_boxes(feed):
    """Returns boxes, scores, labels and images that depend on every pixel of a batch."""
    sizes, count = feed["sizes"], len(feed["images"])
    weighted = (
        feed["images"]
        * np.linspace(0.1, 1, feed["images"][0].size).reshape(feed["images"].shape[1:])
    ).sum(axis=(1, 2, 3))
    scores = (1 / (1 + np.exp(-np.abs(weighted) / 1e4))).astype(np.float32)
    boxes = np.concatenate([sizes * 0.25, sizes[:, ::-1]], axis=1).astype(np.float32)
    return [boxes, scores, np.arange(count) % 2, np.arange(count)]


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("resize", {}),
        ("resize", {"keep_ratio": False}),
        ("data_preprocessor", {"bgr_to_rgb": False, "pad_size_divisor": 1}),
        ("data_preprocessor", {"type": "DetDataPreprocessor"}),
        ("data_preprocessor", {"type": "mmdet.DetDataPreprocessor"}),
        ("decoder", {}),
        ("decoder", {"keep_ratio": False}),
    ],
)
def test_networks_see_and_return_the_same_bits_as_with_torch(images, part, change, tmp_path):
    description = changed(part, change)
    if part == "decoder":
        noise = np.random.default_rng(2).integers(0, 255, (2, 900, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "long.jpg"), noise)  # of which Resize leaves a row
        images = [*images, tmp_path / "long.jpg"]
    seen = {"plain": [], "torch": []}

    def plain(feed):
        seen["plain"].append(feed)
        return found_boxes(feed)

    def with_torch(feed):
        seen["torch"].append({name: value.numpy() for name, value in feed.items()})
        return list(map(torch.from_numpy, found_boxes(seen["torch"][-1])))

    preparation = Preparation.of(description)
    detector = OnnxDetector(plain, preparation, ("a", "b"), 0.05)
    other = ExportedDetector(with_torch, description, torch.device("cpu"))
    arrays = [cv2.imread(str(images[0])), *images]
    found, expected = detector.predict(arrays), other.predict(arrays)
    assert len(seen["plain"]) >= 2
    for one, another in zip(seen["plain"], seen["torch"], strict=True):
        assert one["images"].dtype == another["images"].dtype
        assert np.array_equal(one["images"], another["images"])
        assert np.array_equal(one["sizes"], another["sizes"])
    assert [json.dumps(one.to_dict()) for one in found] == [
        json.dumps(one.to_dict()) for one in expected
    ]
    with pytest.raises(UsageError, match=r"score_thr 0.01 is below that of the exported model"):
        detector.predict(arrays, score_thr=0.01)


@pytest.mark.parametrize(
    ("part", "change", "reason"),
    [
        ("resize", {"type": "RandomResize"}, "another step"),
        ("resize", {"type": "theirs.Resize"}, "of a plug-in"),
        ("resize", {"interpolation": "nearest"}, "an option that is not known here"),
        ("resize", {"scale": [96, 64]}, "MMDetection takes no list"),
        ("resize", {"scale": (96, 10**6)}, "larger than a stored config may ask for"),
        ("load", {"largest": (48, 32)}, "less than the network sees"),
        ("load", {"largest": "all"}, "no number of pixels"),
        ("load", {"to_float32": True}, "an option that is not known here"),
        ("data_preprocessor", {"type": "theirs.DetDataPreprocessor"}, "of a plug-in"),
        ("data_preprocessor", {"pad_value": 1}, "an option that is not known here"),
        ("data_preprocessor", {"std": [1.0, 0.0, 1.0]}, "divided by nothing"),
        ("data_preprocessor", {"mean": [1.0, float("inf"), 1.0]}, "no number"),
        ("data_preprocessor", {"pad_size_divisor": 0}, "no number of pixels"),
    ],
)
def test_other_preparations_are_left_to_torch(part, change, reason):
    assert None not in (Preparation.of(DESCRIPTION), Preparation.of(changed("load", {})))
    assert Preparation.of(changed(part, change)) is None, reason


def test_images_that_cannot_be_read_or_become_too_large_are_named(tmp_path):
    detector = OnnxDetector(found_boxes, Preparation.of(DESCRIPTION), ("a", "b"), 0.05)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("text")
    for name, words in (
        ("none.jpg", "no such image"),
        ("empty.jpg", "the file is empty"),
        ("text.jpg", "text.jpg: "),
    ):
        with pytest.raises(DataError, match=words):
            detector.prepare(str(tmp_path / name))
    large = changed("resize", {"scale": (4096, 4096)})
    detector = OnnxDetector(found_boxes, Preparation.of(large), ("a", "b"), 0.05)
    with pytest.raises(DataError, match="the array 4096x4096 pixels large"):
        detector.prepare(np.zeros((9, 9, 3), np.uint8))


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    """A model whose box is the whole image, with a score of its brightness."""
    helper = pytest.importorskip("onnx").helper
    number, text = pytest.importorskip("onnx").TensorProto, as_text(DESCRIPTION)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sigmoid", ["mean"], ["scores"]),
        helper.make_node("Sub", ["sizes", "sizes"], ["corner"]),
        helper.make_node("Concat", ["corner", "sizes"], ["boxes"], axis=1),
        helper.make_node("Sub", ["mean", "mean"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["labels"], to=number.INT64),
        helper.make_node("NonZero", ["scores"], ["rows"]),
        helper.make_node("Flatten", ["rows"], ["flat"], axis=0),
        helper.make_node("Squeeze", ["flat"], ["image"]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [
            helper.make_tensor_value_info("images", number.FLOAT, ["n", 3, "h", "w"]),
            helper.make_tensor_value_info("sizes", number.FLOAT, ["n", 2]),
        ],
        [
            helper.make_tensor_value_info("boxes", number.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("scores", number.FLOAT, ["n"]),
            helper.make_tensor_value_info("labels", number.INT64, ["n"]),
            helper.make_tensor_value_info("image", number.INT64, None),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)
    helper.set_model_props(model, {"fldet": text})
    file = tmp_path_factory.mktemp("onnx") / "brightness.onnx"
    file.write_bytes(model.SerializeToString())
    return file


@pytest.mark.parametrize("decoder", ["exact", "fast"])
def test_a_prediction_imports_no_torch(onnx_file, images, tmp_path, decoder):
    pytest.importorskip("onnxruntime")
    code = (
        "import sys\nfrom fldet.cli.main import main\n"
        "try:\n    main()\nfinally:\n"
        "    print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", code, "predict", onnx_file, images[0].parent),
            *("--out", "found", "--decoder", decoder),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(fldet.__file__).parents[1]), "PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.splitlines()[-1].split())
    assert {"fldet", "onnxruntime", "cv2", "numpy"} <= loaded
    assert not loaded & {"torch", "torchvision", "mmengine", "mmcv", "mmdet", "pycocotools"}
    assert not loaded & {"matplotlib", "scipy", "sympy"}
    lines = (tmp_path / "found" / "predictions.jsonl").read_text().splitlines()
    detector = Detector.load(onnx_file, device="cpu")
    detector.use_decoder(decoder)
    expected = detector.predict(images, score_thr=0.3)
    for line, one in zip(map(json.loads, lines), expected, strict=True):
        assert (line["boxes"], line["scores"]) == (one.boxes.tolist(), one.scores.tolist())


def test_which_files_are_left_to_torch(onnx_file, tmp_path):
    pytest.importorskip("onnxruntime")
    assert isinstance(load_plain(onnx_file), OnnxDetector)
    assert load_plain(onnx_file, "cuda") is None
    assert load_plain(tmp_path / "none.onnx") is None
    (tmp_path / "weights.pth").touch()
    assert load_plain(tmp_path / "weights.pth") is None
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(CheckpointError, match="cannot read the exported model"):
        load_plain(tmp_path / "text.onnx")
