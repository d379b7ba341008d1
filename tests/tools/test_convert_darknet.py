"""The converter against a darknet in NumPy: another reading of the same two files."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

TOOL = Path(__file__).parents[2] / "tools" / "convert_darknet.py"
PRIORS = [(0.57273, 0.677385), (1.87446, 2.06253), (3.33843, 5.47434)]
CLASSES = 4
CONV = (
    "[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\nstride=1\npad=1\nactivation=leaky\n\n"
)
POOL = "[maxpool]\nsize=2\nstride=2\n\n"


def write_cfg(path, change=("", "")):
    """yolov2.cfg with channels of its own, all of them even multiples of 4."""
    stages = [[4], [8], [16, 8, 16], [32, 16, 32], [64, 32, 64, 32, 64]]
    stages += [[128, 64, 128, 64, 128]]
    text = "[net]\n# Testing\nbatch=1\nheight=416\n\n"
    for index, stage in enumerate(stages):
        text += POOL if index else ""
        text += "".join(CONV.format(c, 1 if i % 2 else 3) for i, c in enumerate(stage))
    text += "#######\n\n" + CONV.format(20, 3) * 2 + "[route]\nlayers=-9\n\n"
    text += (
        CONV.format(8, 1) + "[reorg]\nstride=2\n\n[route]\nlayers=-1,-4\n\n" + CONV.format(20, 3)
    )
    text += "[convolutional]\nsize=1\nstride=1\npad=1\n"
    text += f"filters={len(PRIORS) * (5 + CLASSES)}\nactivation=linear\n\n\n"
    anchors = ",  ".join(f"{side}" for prior in PRIORS for side in prior)
    text += f"[region]\nanchors =  {anchors}\nbias_match=1\nclasses={CLASSES}\ncoords=4\n"
    text += f"num={len(PRIORS)}\nsoftmax=1\nthresh = .6\n"
    assert change[0] in text
    path.write_text(text.replace(*change))
    return path


def sections(path):
    kinds = []
    for line in path.read_text().splitlines():
        if line.startswith("["):
            kinds.append((line.strip("[]"), {}))
        elif "=" in line:
            name, value = line.split("=")
            kinds[-1][1][name.strip()] = value.strip()
    return [kind for kind in kinds if kind[0] != "net"]


def random_weights(cfg, rng):
    """Numbers of each convolution, in the order of ``save_convolutional_weights``."""
    channels, weights = [3], []
    for index, (kind, options) in enumerate(sections(cfg)):
        before = channels[-1]
        if kind == "convolutional":
            n, k = int(options["filters"]), int(options["size"])
            one = {"biases": rng.normal(0, 0.5, n)}
            if "batch_normalize" in options:
                one["scales"], one["mean"] = rng.uniform(0.5, 1.5, n), rng.normal(0, 0.5, n)
                one["variance"] = rng.uniform(0.5, 1.5, n)
            one["weights"] = rng.normal(0, (2 / (before * k * k)) ** 0.5, (n, before, k, k))
            weights.append({name: value.astype("<f4") for name, value in one.items()})
            channels.append(n)
        elif kind == "route":
            layers = [int(one) for one in options["layers"].split(",")]
            channels.append(sum(channels[index + 1 + layer] for layer in layers))
        else:
            channels.append(before * 4 if kind == "reorg" else before)
    return weights


def as_file(weights, header=(0, 2, 0), seen=32_013_312):
    kind = "<i8" if header[:2] >= (0, 2) else "<i4"
    parts = [np.array(header, "<i4").tobytes(), np.array(seen, kind).tobytes()]
    return b"".join([*parts, *(value.tobytes() for one in weights for value in one.values())])


def forward(cfg, weights, image):
    """The network of a cfg on one (3, H, W) image, layer by layer, in float64."""
    outputs, x, left = [], image.astype(np.float64), iter(weights)
    for kind, options in sections(cfg):
        if kind == "convolutional":
            one = next(left)
            k = int(options["size"])
            padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(1, 2))
            x = np.einsum("chwij,ncij->nhw", windows, one["weights"].astype(np.float64))
            if "scales" in one:
                mean, variance, scales = (
                    one[name][:, None, None] for name in ("mean", "variance", "scales")
                )
                x = (x - mean) / np.sqrt(variance.astype(np.float64) + 0.00001) * scales
            x = x + one["biases"][:, None, None]
            x = np.where(x > 0, x, 0.1 * x) if options["activation"] == "leaky" else x
        elif kind == "maxpool":
            c, h, w = x.shape
            x = x.reshape(c, h // 2, 2, w // 2, 2).max(axis=(2, 4))
        elif kind == "route":
            x = np.concatenate([outputs[int(one)] for one in options["layers"].split(",")])
        elif kind == "reorg":
            c, h, w = x.shape
            small, given = c // 4, x.reshape(c // 4, 2 * h, 2 * w)
            parts = [given[k % small, k // small // 2 :: 2, k // small % 2 :: 2] for k in range(c)]
            x = np.stack(parts).reshape(4 * c, h // 2, w // 2)
        outputs.append(x)
    return x


def region_boxes(raw):
    """Boxes in shares of the input, and scores, as ``get_region_detections`` has them."""
    raw = raw.reshape(len(PRIORS), 5 + CLASSES, *raw.shape[1:])
    _, _, height, width = raw.shape
    rows = []
    for n, j, i in np.ndindex(len(PRIORS), height, width):
        x, y, w, h, obj, *classes = raw[n, :, j, i]
        x, y, obj = (1 / (1 + np.exp(-v)) for v in (x, y, obj))
        exps = np.exp(np.array(classes) - max(classes))
        w, h = np.exp(w) * PRIORS[n][0] / width, np.exp(h) * PRIORS[n][1] / height
        rows.append(((i + x) / width, (j + y) / height, w, h, *(obj * exps / exps.sum())))
    return np.array(rows)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("convert_darknet", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def files(tmp_path):
    cfg = write_cfg(tmp_path / "small.cfg")
    weights = random_weights(cfg, np.random.default_rng(0))
    path = tmp_path / "small.weights"
    path.write_bytes(as_file(weights))
    return cfg, path, weights


def test_the_converted_network_computes_what_darknet_computes(tool, files, tmp_path):
    cfg, path, weights = files
    assert tool.main([str(cfg), str(path), str(tmp_path / "small.pth")]) == 0
    model = tool.read_network(cfg).eval()
    content = torch.load(tmp_path / "small.pth", weights_only=True)
    model.load_state_dict(content["state_dict"], strict=True)
    assert model["bbox_head"].seen == 32_013_312
    image = np.random.default_rng(1).random((3, 64, 96))
    with torch.no_grad():
        pixels = torch.from_numpy(image).float()[None]
        ((raw,),) = model["bbox_head"](model["neck"](model["backbone"](pixels)))
    wanted = forward(cfg, weights, image)
    assert wanted.std() > 0.1
    torch.testing.assert_close(raw[0].double(), torch.from_numpy(wanted), rtol=1e-4, atol=1e-4)
    boxes, scores = model["bbox_head"].decode(torch.from_numpy(wanted)[None])
    rows = torch.from_numpy(region_boxes(wanted))
    sides = torch.tensor([96.0, 64.0])
    centres, sizes = (boxes[0, :, :2] + boxes[0, :, 2:]) / 2, boxes[0, :, 2:] - boxes[0, :, :2]
    ours = torch.cat([centres / sides, sizes / sides, scores[0]], dim=1)
    torch.testing.assert_close(ours, rows, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("header", [(0, 2, 0), (0, 1, 0)])
def test_there_and_back_gives_the_same_bytes(tool, files, tmp_path, header):
    cfg, path, weights = files
    path.write_bytes(as_file(weights, header, seen=1_280))
    middle, back = tmp_path / "middle.pth", tmp_path / "back.weights"
    assert tool.main([str(cfg), str(path), str(middle)]) == 0
    assert tool.main([str(cfg), str(middle), str(back)]) == 0
    assert back.read_bytes() == path.read_bytes()


def test_the_first_18_convolutions_are_a_backbone(tool, files, tmp_path):
    cfg, path, weights = files
    path.write_bytes(as_file(weights[:18]))
    out = tmp_path / "backbone.pth"
    assert tool.main([str(cfg), str(path), str(out)]) == 0
    state = torch.load(out, weights_only=True)["state_dict"]
    own = tool.read_network(cfg).state_dict()
    assert set(state) == {name for name in own if name.startswith("backbone.")}
    last = torch.from_numpy(weights[17]["weights"].copy())
    assert state["backbone.stage5.4.conv.weight"].equal(last)


def test_the_files_of_yolov2_have_the_size_that_is_published(tool):
    with torch.device("meta"):
        parts = torch.nn.ModuleList(
            [tool.DarkNet19(), tool.PassthroughNeck(), tool.YOLOv2Head(80, 1024)]
        )
    count = sum(one.size() for one in tool.convolutions_of(parts))
    assert 16 + 4 * count == 203_934_260


FAULTS = {
    "short": (lambda data: data[:-4], r"has \d+ bytes[\s\S]*a header of 20 and \d+ numbers"),
    "long": (lambda data: data + b"1234", r"has \d+ bytes"),
    "an odd byte": (lambda data: data + b"1", r"has \d+ bytes"),
    "empty": (lambda data: data[:0], "has 0 bytes"),
    "half a header": (lambda data: data[:18], "a header of 20"),
    "text": (lambda data: b"<html>" * 100, "begins with the version"),
    "not finite": (lambda data: data[:-4] + np.float32("nan").tobytes(), "not finite"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_weights_that_cannot_be_are_named(tool, files, tmp_path, capsys, name):
    cfg, path, _ = files
    damage, words = FAULTS[name]
    path.write_bytes(damage(path.read_bytes()))
    assert tool.main([str(cfg), str(path), str(tmp_path / "out.pth")]) == 1
    assert re.search(words, capsys.readouterr().err)
    assert not (tmp_path / "out.pth").exists()


CFG_FAULTS = [
    (("layers=-1,-4", "layers=-4,-1"), "layer 28 is a route -4,-1"),
    (("size=2\nstride=2", "size=2\nstride=1"), "a maxpool of stride 1"),
    (("[region]", "[detection]"), "layer 31 is a detection"),
    (("softmax=1", "softmax=0"), "softmax=0"),
    (("filters=27", "filters=28"), "convolution 22 has 28 filters"),
    (("filters=128", "filters=124"), "convolution 13 has 124 filters"),
    (("filters=4\n", "filters=3\n"), "base_channels must be even"),
    (("filters=4\n", "filters=-4\n"), "filters is '-4'"),
    (("0.57273", "a"), "anchors are 'a,"),
    (("#######", "#######\nnonsense"), "line 1"),
    (("[reorg]\nstride=2\n\n", ""), "layer 27 is a route"),
]


@pytest.mark.parametrize(("change", "words"), CFG_FAULTS)
def test_a_cfg_of_another_network_is_refused(tool, files, tmp_path, capsys, change, words):
    _, path, _ = files
    cfg = write_cfg(tmp_path / "other.cfg", change)
    assert tool.main([str(cfg), str(path), str(tmp_path / "out.pth")]) == 2
    assert words in capsys.readouterr().err


def test_nothing_is_overwritten_and_code_in_a_checkpoint_is_not_run(tool, files, tmp_path, capsys):
    cfg, path, _ = files
    assert tool.main([str(cfg), str(path), str(path)]) == 2
    assert "exists" in capsys.readouterr().err
    trap = tmp_path / "trap.pth"
    torch.save({"state_dict": {}, "meta": Trap(tmp_path / "sprung")}, trap)
    assert tool.main([str(cfg), str(trap), str(tmp_path / "new.weights")]) == 1
    assert not (tmp_path / "sprung").exists()


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)
