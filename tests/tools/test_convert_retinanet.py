"""The converter against torchvision's own network, and against Detectron2's names and rules."""

import importlib.util
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.datasets import CocoDataset
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from torch import nn

from fldet.checkpoints.files import load_weights, read_checkpoint
from fldet.config.load import load_config
from fldet.errors import UsageError
from fldet.inference.detector import Detector
from fldet.inference.networks import network_with_boxes
from fldet.models.task_modules import AnchorGenerator, TorchvisionAnchorGenerator
from fldet.models.task_modules.torchvision_anchors import fitted_to
from fldet.registry import MODELS

TOOL = Path(__file__).parents[2] / "tools" / "convert_retinanet.py"
ROWS = {91: [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]}

CLASSES = ("cat", "dog", "bird")


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("convert_retinanet", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def literal_nms(boxes, scores, iou_threshold):
    """Greedy suppression of what overlaps a better box by more than the threshold."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    left, kept = scores.argsort(descending=True, stable=True), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        corners = torch.maximum(boxes[best, :2], boxes[left, :2])
        ends = torch.minimum(boxes[best, 2:], boxes[left, 2:])
        inner = (ends - corners).clamp(min=0).prod(1)
        left = left[~(inner / (areas[best] + areas[left] - inner) > iou_threshold)]
    return torch.stack(kept) if kept else left


@pytest.fixture(scope="module")
def torchvision():
    """Its detection models; where its operators are of another torch, with a literal NMS."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("no torchvision: make .venv-peers/.ready")
    with pytest.MonkeyPatch.context() as patch:
        library = None
        if not hasattr(torch.ops.torchvision, "nms"):
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from torchvision.models import detection

        patch.setattr("torchvision.ops.boxes.nms", literal_nms)
        yield detection
        del library


# --- torchvision ---


def shaken(model, seed=0):
    """Random weights with which scores, boxes and norms say something."""
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            if name.startswith(("head", "backbone.fpn")):
                module.weight.data *= 0.7
        if name.endswith("bn3"):
            nn.init.constant_(module.weight, 0.3)
        for value, low in (("running_var", 0.5), ("running_mean", -0.1)):
            if getattr(module, value, None) is not None:
                noise = torch.rand(getattr(module, value).shape, generator=generator)
                getattr(module, value).copy_(noise * (1 if low > 0 else 0.2) + low)
    head = model.head
    nn.init.normal_(head.classification_head.cls_logits.weight, std=0.01, generator=generator)
    nn.init.normal_(head.classification_head.cls_logits.bias, -3, 0.5, generator=generator)
    nn.init.normal_(head.regression_head.bbox_reg.weight, std=0.005, generator=generator)
    return model.eval()


def old_names(state):
    """A file of torchvision before 0.13, as its published first RetinaNet."""
    new = {}
    for name, value in state.items():
        name = re.sub(r"(inner|layer)_blocks\.(\d)\.0\.", r"\1_blocks.\2.", name)
        name = re.sub(r"conv\.(\d)\.0\.(\w+)$", lambda f: f"conv.{2 * int(f[1])}.{f[2]}", name)
        new[name] = value
    return {name: value for name, value in new.items() if "num_batches" not in name}


def raw_outputs(model, images):
    """Logits (N, A * H * W, K) and deltas (N, A * H * W, 4) in torchvision's order."""
    cls_scores, bbox_preds = model.bbox_head(model.extract_feat(images))
    size = model.bbox_head.num_classes
    return [
        torch.cat([m.permute(0, 2, 3, 1).reshape(len(m), -1, width) for m in maps], dim=1)
        for maps, width in ((cls_scores, size), (bbox_preds, 4))
    ]


KINDS = {
    "first, published": ("retinanet_resnet50_fpn", 91, True, 0.0),
    "first, own classes": ("retinanet_resnet50_fpn", 4, False, 1e-5),
    "second": ("retinanet_resnet50_fpn_v2", 91, False, 1e-5),
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request, torchvision, tool, tmp_path_factory):
    """A network of torchvision, and ours with its weights by way of two files."""
    name, outputs, is_old, eps = KINDS[request.param]
    theirs = shaken(
        getattr(torchvision, name)(weights=None, weights_backbone=None, num_classes=outputs)
    )
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps
    rows = ROWS.get(outputs, list(range(1, outputs)))
    theirs.head.classification_head.cls_logits.bias.data.view(9, outputs)[
        :, [i for i in range(outputs) if i not in rows]
    ] = -100.0  # as trained: nothing is ever background
    folder = tmp_path_factory.mktemp("torchvision")
    state = theirs.state_dict()
    torch.save(old_names(state) if is_old else state, folder / "theirs.pth")
    out = folder / "ours.pth"
    options = ["--norm-eps", "1e-5", "--classes", *CLASSES] if outputs == 4 else []
    assert tool.main([str(folder / "theirs.pth"), str(out), *options]) == 0
    cfg = load_config(f"retinanet/torchvision_r50_fpn{'_v2' if name.endswith('v2') else ''}.py")
    cfg.model.bbox_head.num_classes = len(rows)
    if options:  # else it is the config's
        cfg.model.backbone.norm_cfg.eps = eps
    init_default_scope("mmdet")
    ours = MODELS.build(cfg.model).eval()
    load_weights(ours, read_checkpoint(out), out)
    return theirs, ours, rows, out


def test_raw_outputs_are_torchvisions(pair):
    theirs, ours, rows, _ = pair
    images = torch.randn(1, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs.head(list(theirs.backbone(images).values()))
        logits, deltas = raw_outputs(ours, images)
    wanted = expected["cls_logits"][..., rows]
    assert wanted.std() > 0.3
    assert expected["bbox_regression"].std() > 0.01
    torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(deltas, expected["bbox_regression"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(128, 256), (150, 260)])
def test_detections_are_torchvisions(pair, shape):
    """On an image that neither side resizes; 260 pixels are padded to 288, 150 to 160."""
    theirs, ours, rows, _ = pair
    rgb = torch.randint(0, 256, (3, *shape), generator=torch.Generator().manual_seed(2))
    theirs.transform.min_size, theirs.transform.max_size = (min(shape),), max(shape)
    meta = {"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0)}
    batch = {
        "inputs": [rgb.flip(0).to(torch.uint8)],
        "data_samples": [DetDataSample(metainfo=meta)],
    }
    with torch.no_grad():
        (expected,) = theirs([rgb.float() / 255])
        found = ours.test_step(batch)[0].pred_instances
    assert len(found) == len(expected["scores"]) > 100
    assert set(expected["labels"].tolist()) <= set(rows)
    torch.testing.assert_close(found.scores, expected["scores"], rtol=0, atol=1e-5)
    order = [rows.index(label) for label in expected["labels"].tolist()]
    same = found.labels == torch.tensor(order)
    assert same.float().mean() > 0.98  # equal scores may change places
    torch.testing.assert_close(found.bboxes[same], expected["boxes"][same], rtol=0, atol=1e-3)


def test_the_checkpoint_predicts_without_a_config(pair, tiny_coco):
    _, ours, rows, out = pair
    detector = Detector.load(out, device="cpu")
    assert detector.model.backbone.bn1.eps == ours.backbone.bn1.eps
    expected = tuple(CocoDataset.METAINFO["classes"]) if len(rows) == 80 else CLASSES
    assert detector.classes == expected
    if len(rows) == 3:
        assert len(detector.predict([next((tiny_coco / "val2017").iterdir())])) == 1


def test_parameters_are_the_published(torchvision):
    """Its frozen norms have none; of the second network's all are counted."""
    with torch.device("meta"):
        first = torchvision.retinanet_resnet50_fpn(weights=None, weights_backbone=None)
        second = torchvision.retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None)
    norms = [m for m in first.modules() if isinstance(m, nn.BatchNorm2d)]
    in_norms = sum(p.numel() for norm in norms for p in norm.parameters())
    assert sum(p.numel() for p in first.parameters()) - in_norms == 34_014_999
    assert sum(p.numel() for p in second.parameters()) == 38_198_935


@pytest.mark.parametrize("size", [(800, 1344), (128, 256), (160, 288), (32, 32), (1056, 800)])
def test_anchors_are_torchvisions_at_every_size(torchvision, size):
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.retinanet import _default_anchorgen

    sizes = [(math.ceil(size[0] / s), math.ceil(size[1] / s)) for s in (8, 16, 32, 64, 128)]
    maps = [torch.zeros(1, 1, *one) for one in sizes]
    (expected,) = _default_anchorgen()(ImageList(torch.zeros(1, 3, *size), [size]), maps)
    generator = TorchvisionAnchorGenerator()
    found = generator.grid_priors(sizes, device="cpu")
    assert torch.cat(found).equal(expected)
    for level, (anchors, one) in enumerate(zip(found, sizes, strict=True)):
        rows = torch.arange(0, len(anchors), 7)
        few = fitted_to(generator, sizes).sparse_priors(rows, one, level, device="cpu")
        assert few.equal(anchors[rows])
    apart = [stride[0] for stride in fitted_to(generator, sizes).strides]
    assert (apart == [8, 16, 32, 64, 128]) == (size[1] % 128 == 0)
    assert generator.strides == AnchorGenerator().strides


# --- Detectron2, by its names: as its code computes, in torch's functions ---

BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}


def detectron2_shapes(classes=80):
    """Names and shapes of R_50_FPN."""
    shapes = {}

    def conv(name, after, before, side, norm=True):
        shapes[f"{name}.weight"] = (after, before, side, side)
        for part in ("weight", "bias", "running_mean", "running_var") if norm else ():
            shapes[f"{name}.norm.{part}"] = (after,)
        if not norm:
            shapes[f"{name}.bias"] = (after,)

    conv("backbone.bottom_up.stem.conv1", 64, 3, 7)
    before = 64
    for stage, count in BLOCKS.items():
        middle, after = 2 ** (stage + 4), 2 ** (stage + 6)
        for block in range(count):
            name = f"backbone.bottom_up.res{stage}.{block}"
            if block == 0:
                conv(f"{name}.shortcut", after, before, 1)
            conv(f"{name}.conv1", middle, before, 1)
            conv(f"{name}.conv2", middle, middle, 3)
            conv(f"{name}.conv3", after, middle, 1)
            before = after
    for level, channels in ((3, 512), (4, 1024), (5, 2048)):
        conv(f"backbone.fpn_lateral{level}", 256, channels, 1, norm=False)
        conv(f"backbone.fpn_output{level}", 256, 256, 3, norm=False)
    conv("backbone.top_block.p6", 256, 2048, 3, norm=False)
    conv("backbone.top_block.p7", 256, 256, 3, norm=False)
    for subnet in ("cls_subnet", "bbox_subnet"):
        for number in (0, 2, 4, 6):
            conv(f"head.{subnet}.{number}", 256, 256, 3, norm=False)
    conv("head.cls_score", 9 * classes, 256, 3, norm=False)
    conv("head.bbox_pred", 36, 256, 3, norm=False)
    return shapes


def detectron2_state(classes=80):
    rng = np.random.default_rng(0)
    state = {}
    for name, shape in detectron2_shapes(classes).items():
        if len(shape) == 4:
            is_last = name.startswith(("head.cls_score", "head.bbox_pred"))
            deviation = 0.3 if is_last else 1.2
            value = rng.normal(0, deviation / math.sqrt(math.prod(shape[1:])), shape)
        elif "running_var" in name:
            value = rng.uniform(0.5, 1.5, shape)
        elif "conv3.norm.weight" in name:
            value = np.full(shape, 0.3)
        else:
            value = rng.normal(1.0 if "norm.weight" in name else 0.0, 0.1, shape)
        # the deviation of pixels is in the first convolution, as in MSRA's weights
        state[name] = (value / 58 if "stem.conv1.weight" in name else value).astype(np.float32)
    return state


def cell_anchors(side):
    """For each size the three ratios, as Detectron2 has them."""
    anchors = []
    for size in (side, side * 2 ** (1 / 3), side * 2 ** (2 / 3)):
        for ratio in (0.5, 1, 2):
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            anchors.append([-width / 2, -height / 2, width / 2, height / 2])
    return np.array(anchors, np.float32)


def detectron2_forward(state, pixels):
    """Logits and deltas of the levels, (N, A * K, H, W) and (N, A * 4, H, W), of normalized BGR."""
    state = {name: torch.from_numpy(value) for name, value in state.items()}

    def conv(name, x, stride=1):
        weight = state[f"{name}.weight"]
        x = F.conv2d(x, weight, state.get(f"{name}.bias"), stride, weight.shape[-1] // 2)
        if f"{name}.norm.weight" in state:
            scale, bias, mean, var = (
                state[f"{name}.norm.{part}"][:, None, None]
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            x = (x - mean) / (var + 1e-5).sqrt() * scale + bias
        return x

    x = F.max_pool2d(conv("backbone.bottom_up.stem.conv1", pixels, 2).relu(), 3, 2, 1)
    stages = {}
    for stage, count in BLOCKS.items():
        for block in range(count):
            name, stride = f"backbone.bottom_up.res{stage}.{block}", 1 + (stage > 2 and block == 0)
            y = conv(f"{name}.conv1", x, stride).relu()
            y = conv(f"{name}.conv3", conv(f"{name}.conv2", y).relu())
            x = (y + (conv(f"{name}.shortcut", x, stride) if block == 0 else x)).relu()
        stages[stage] = x
    levels, top = {}, None
    for level in (5, 4, 3):
        lateral = conv(f"backbone.fpn_lateral{level}", stages[level])
        top = lateral if top is None else lateral + F.interpolate(top, scale_factor=2)
        levels[level] = conv(f"backbone.fpn_output{level}", top)
    levels[6] = conv("backbone.top_block.p6", stages[5], 2)
    levels[7] = conv("backbone.top_block.p7", levels[6].relu(), 2)
    outputs = [], []
    for level in range(3, 8):
        for maps, subnet, last in zip(
            outputs, ("cls_subnet", "bbox_subnet"), ("cls_score", "bbox_pred"), strict=True
        ):
            x = levels[level]
            for number in (0, 2, 4, 6):
                x = conv(f"head.{subnet}.{number}", x).relu()
            maps.append(conv(f"head.{last}", x))
    return outputs


def flat(maps, width):
    return torch.cat([m.permute(0, 2, 3, 1).reshape(len(m), -1, width) for m in maps], dim=1)


def test_a_file_of_detectron2_computes_the_same(tool, tmp_path):
    state = detectron2_state()
    extra = {f"anchor_generator.cell_anchors.{i}": cell_anchors(32 * 2**i) for i in range(5)}
    extra["pixel_mean"] = np.array([103.53, 116.28, 123.675], np.float32).reshape(3, 1, 1)
    extra["pixel_std"] = np.ones((3, 1, 1), np.float32)
    source, out = tmp_path / "model_final.pkl", tmp_path / "ours.pth"
    content = {"model": {**state, **extra}, "__author__": "Detectron2 Model Zoo"}
    source.write_bytes(pickle.dumps(content, protocol=2))
    assert tool.main([str(source), str(out)]) == 0
    ours = Detector.load(out, device="cpu")
    assert ours.classes == tuple(CocoDataset.METAINFO["classes"])
    before = ours.model.data_preprocessor
    bgr = torch.randint(0, 256, (1, 3, 64, 160), generator=torch.Generator().manual_seed(3)).float()
    pixels = (bgr - before.mean) / before.std
    assert not before._channel_conversion
    assert before.mean.flatten().tolist() == pytest.approx([103.53, 116.28, 123.675])
    assert before.std.flatten().tolist() == [1, 1, 1]
    with torch.no_grad():
        logits, deltas = detectron2_forward(state, pixels)
        found, found_deltas = raw_outputs(ours.model, pixels)
    sizes = [tuple(m.shape[-2:]) for m in logits]
    assert sizes == [(8, 20), (4, 10), (2, 5), (1, 3), (1, 2)]
    anchors = torch.cat(ours.model.bbox_head.prior_generator.grid_priors(sizes, device="cpu"))
    theirs = [
        torch.tensor([[x, y, x, y]]) * 2 ** (level + 3)
        + torch.from_numpy(cell_anchors(32 * 2**level))
        for level, (height, width) in enumerate(sizes)
        for y in range(height)
        for x in range(width)
    ]
    # each row of ours is the row of theirs that has the same anchor
    rows = torch.cdist(anchors, torch.cat(theirs)).argmin(1)
    assert rows.sort().values.equal(torch.arange(len(rows)))
    assert not rows.equal(torch.arange(len(rows)))
    torch.testing.assert_close(anchors, torch.cat(theirs)[rows], rtol=1e-5, atol=1e-3)
    expected = flat(logits, 80)[:, rows]
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    expected = flat(deltas, 4)[:, rows]
    torch.testing.assert_close(found_deltas, expected, rtol=1e-5, atol=1e-5)


def test_another_number_of_classes_in_a_pth_file(tool, tmp_path):
    """As DetectionCheckpointer saves a training."""
    state = {name: torch.from_numpy(v) for name, v in detectron2_state(classes=2).items()}
    source, out = tmp_path / "model_final.pth", tmp_path / "ours.pth"
    torch.save({"model": state, "iteration": 9, "optimizer": {"state": {}}}, source)
    assert tool.main([str(source), str(out), "--classes", "cat", "dog"]) == 0
    content = read_checkpoint(out)
    assert content["meta"]["dataset_meta"]["classes"] == ("cat", "dog")
    assert content["state_dict"]["bbox_head.retina_cls.weight"].shape[0] == 18
    assert Detector.load(out, device="cpu").classes == ("cat", "dog")


# --- what is refused ---


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def small(**changes):
    """A file that says whose it is, and has nothing else."""
    state = {
        "backbone.bottom_up.stem.conv1.weight": torch.zeros(64, 3, 7, 7),
        "head.cls_score.weight": torch.zeros(18, 256, 3, 3),
        "head.cls_score.bias": torch.zeros(18),
        "head.bbox_pred.weight": torch.zeros(36, 256, 3, 3),
        "head.bbox_pred.bias": torch.zeros(36),
    }
    return {**state, **{name.replace("__", "."): value for name, value in changes.items()}}


TORCHVISIONS = {
    "backbone.body.conv1.weight": torch.zeros(64, 3, 7, 7),
    "head.regression_head.bbox_reg.bias": torch.zeros(36),
}
REFUSED = [
    ({"a.weight": torch.zeros(1)}, "neither the names of torchvision's"),
    ({}, "holds no weights"),
    (small(), "is missing"),
    (small(backbone__fpn_lateral3__norm__weight=torch.zeros(1)), r"has no place"),
    (small(head__cls_subnet__1__weight=torch.zeros(1)), "cls_subnet.1.weight' has no place"),
    (small(head__cls_score__bias=torch.zeros(17)), r"retina_cls.bias would have the shape \(17,\)"),
    (small(head__cls_score__bias=torch.tensor(1.0)), r"retina_cls.bias would have the shape \(\)"),
    (small(head__bbox_pred__bias=torch.zeros(45)), "retina_reg.bias is"),
    (small(pixel_mean=torch.tensor([123.675, 116.28, 103.53])), "pixel_mean is"),
    (small(pixel_std=torch.tensor([57.0, 57.0, 58.0])), "pixel_std is"),
    (small(anchor_generator__cell_anchors__0=torch.zeros(9, 4)), "other anchors on level 0"),
    (small(anchor_generator__cell_anchors__1=torch.zeros(3, 4)), "other anchors on level 1"),
    (TORCHVISIONS, "retina_cls.weight would have"),
]


@pytest.mark.parametrize(("state", "words"), REFUSED)
def test_files_of_other_networks_are_refused(tool, tmp_path, capsys, state, words):
    torch.save(state, tmp_path / "x.pth")
    assert tool.main([str(tmp_path / "x.pth"), str(tmp_path / "out.pth")]) == 1
    assert re.search(words, capsys.readouterr().err)
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pickle.dumps({"model": {"a": 1.0, "b": "text"}}), "'b' is a str"),
        (pickle.dumps({"model": {}}), "holds no model"),
        (pickle.dumps([1]), "holds no model"),
        (pickle.dumps({"model": {1: np.zeros(1)}}), "1 is a ndarray"),
        (b"", "cannot read"),
        (pickle.dumps({"model": {"a": np.zeros(100)}})[:-50], "cannot read"),
        (b"<html>", "cannot read"),
    ],
)
def test_a_pkl_file_that_is_no_model(tool, tmp_path, capsys, data, words):
    (tmp_path / "x.pkl").write_bytes(data)
    assert tool.main([str(tmp_path / "x.pkl"), str(tmp_path / "out.pth")]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["pth", "pkl"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_file_is_not_run(tool, tmp_path, capsys, ending, protocol):
    source, content = tmp_path / f"x.{ending}", {"model": {"a": Trap(tmp_path / "sprung")}}
    if ending == "pkl":
        source.write_bytes(pickle.dumps(content, protocol=protocol))
    else:
        torch.save(content, source, pickle_protocol=max(protocol, 2))
    assert tool.main([str(source), str(tmp_path / "out.pth")]) == 1
    assert "code" in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists()


def test_options(tool, tmp_path, capsys):
    source, out = tmp_path / "x.pth", tmp_path / "out.pth"
    torch.save(small(), source)
    assert tool.main([str(source), str(source)]) == 2
    assert "exists" in capsys.readouterr().err
    assert tool.main([str(source), str(out), "--classes", "a"]) == 2
    assert "Expected: 2" in capsys.readouterr().err
    config = "systems/faster_rcnn_r101_fpn.py"
    assert tool.main([str(source), str(out), "--config", config]) == 2
    assert "has no RetinaNet" in capsys.readouterr().err
    assert tool.main([str(tmp_path / "none.pkl"), str(out)]) == 1
    assert tool.main([str(tmp_path / "none.pth"), str(out)]) == 1
    assert not out.exists()


def test_anchors_that_depend_on_the_image_are_not_exported_inside():
    init_default_scope("mmdet")
    with torch.device("meta"):
        model = MODELS.build(load_config("retinanet/torchvision_r50_fpn.py").model)
    with pytest.raises(UsageError, match="cannot be exported") as caught:
        network_with_boxes(model)
    assert caught.value.hint == "--post-process outside"
