"""The lines of a config that make a training step faster or smaller."""

import copy
import logging

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn

from fldet.checkpoints.files import read_checkpoint
from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.config.train_step import set_train_step
from fldet.engine.train import train
from fldet.errors import ConfigError, UnavailableError
from fldet.models.fast.bfloat16 import Bfloat16OptimWrapper
from fldet.models.fast.train_step import avoid_faults_of_cpus, require_compiler, set_up_model

CPU = torch.device("cpu")
# 8 channels of the tiny config: see fldet.data.preprocessor
WIDER = ["model.backbone.base_channels=16", "model.neck.in_channels=[16,32,64,128]"]
COMPILED = ["compile=dict(sizes=64, backend='eager')"]


@pytest.fixture
def make(tiny_config):
    """Builds the model of the tiny config with some lines, and its prepared config."""

    def build(*options, compiling=None):
        cfg = prepare_config(load_config(tiny_config, [*WIDER, *options]), phases=("train",))
        if compiling:
            cfg.compile = compiling
        set_train_step(cfg, CPU)
        torch.manual_seed(0)
        model = build_model(cfg)
        set_up_model(model, cfg)
        avoid_faults_of_cpus(model, cfg)
        return model.train(), cfg

    return build


def batch_of(*sizes, num_boxes=3):
    """Images of noise of (height, width) pixels, with boxes."""
    from mmdet.structures import DetDataSample

    generator = torch.Generator().manual_seed(len(sizes) + sizes[0][1])
    inputs, samples = [], []
    for height, width in sizes:
        inputs.append(
            torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
        )
        corner = torch.rand(num_boxes, 2, generator=generator) * 20
        side = 16 + 20 * torch.rand(num_boxes, 2, generator=generator)
        sample = DetDataSample(metainfo=dict(img_shape=(height, width)))
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corner, corner + side], dim=1), labels=torch.arange(num_boxes) % 2
        )
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}


def loss_of(model, batch, amp=False):
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
        return sum(value for value in model(**data, mode="loss").values())


def gradients(model, batch, amp=False):
    model.zero_grad()
    loss_of(model, batch, amp).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_step(one, other, batch, rtol):
    expected, found = gradients(one, batch), gradients(other, batch)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        difference = float((found[name] - value).abs().max())
        assert difference <= rtol * float(value.abs().max()) + 1e-12, name
    buffers = dict(other.named_buffers())
    for name, value in one.named_buffers():
        torch.testing.assert_close(buffers[name], value, msg=name)


# --- channels_last ---


@pytest.mark.parametrize("amp", [False, True], ids=["float32", "bfloat16"])
def test_the_layout_stays_from_the_pixels_to_the_loss(make, amp):
    model, _ = make("channels_last=True")
    wrong, seen = [], []

    def look(name):
        def check(_module, _inputs, output):
            for value in output if isinstance(output, (tuple, list)) else [output]:
                maps = value if isinstance(value, (tuple, list)) else [value]
                for m in maps:
                    seen.append(name)
                    if not m.is_contiguous(memory_format=torch.channels_last):
                        wrong.append((name, tuple(m.shape), m.stride()))
                    if m.requires_grad:
                        m.register_hook(lambda g: layout_of_gradient(name, g))

        return check

    def layout_of_gradient(name, gradient):
        if gradient.stride(1) != 1:  # one level of a larger tensor is not contiguous by itself
            wrong.append((f"gradient of {name}", tuple(gradient.shape), gradient.stride()))

    for part in ("backbone", "neck", "bbox_head"):
        for name, module in getattr(model, part).named_modules(prefix=part):
            kept = (nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.ReLU, nn.MaxPool2d)
            if isinstance(module, kept) or name == part:
                module.register_forward_hook(look(name))
    inputs = []
    model.backbone.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    gradients(model, batch_of((96, 128), (96, 128)), amp)
    assert inputs[0].stride() == (3 * 96 * 128, 1, 3 * 128, 3)
    assert {"backbone", "neck", "bbox_head", "bbox_head.retina_cls"} <= set(seen)
    assert wrong == []


def test_channels_last_takes_the_same_step(make):
    plain, _ = make()
    other, _ = make("channels_last=True")
    assert_same_step(plain, other, batch_of((64, 96), (64, 64)), rtol=1e-4)


# --- fold_batch_norms ---


@pytest.mark.parametrize(("capability", "slow"), [("AVX512", False), ("AVX2", True)])
def test_one_thread_computes_small_kernels_by_onednn_where_it_pays(
    make, monkeypatch, capability, slow
):
    """torch's own kernel for them is half as fast with AVX-512, and faster without."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        (ours, _), (plain, _) = make("channels_last=True"), make()
        ours.load_state_dict(plain.state_dict())
        batch = torch.rand(2, 3, 64, 96)
        with torch.profiler.profile() as profile:
            found = ours.extract_feat(batch.contiguous(memory_format=torch.channels_last))
            sum(one.sum() for one in found).backward()
        expected = plain.extract_feat(batch)
        sum(one.sum() for one in expected).backward()
    finally:
        torch.set_num_threads(threads)
    assert any("slow_conv" in event.key for event in profile.key_averages()) == slow
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    gradients = dict(plain.named_parameters())
    for name, weight in ours.backbone.named_parameters():
        if weight.grad is not None:
            expected = gradients[f"backbone.{name}"].grad
            torch.testing.assert_close(weight.grad, expected, rtol=1e-3, atol=1e-3)


def test_a_folded_norm_takes_the_same_step(make):
    plain, _ = make("model.backbone.norm_eval=True")
    other, _ = make("model.backbone.norm_eval=True", "fold_batch_norms=True")
    vary_norms(plain)
    other.load_state_dict(plain.state_dict())  # with the same names
    calls = []
    for model in (plain, other):
        for module in model.modules():
            if is_norm(module):
                module.register_forward_hook(
                    lambda _m, x, y, model=model: calls.append((model, x[0] is y))
                )
    batch = batch_of((64, 96), (64, 64))
    assert_same_step(plain, other, batch, rtol=1e-4)
    passed = [same for model, same in calls if model is other]
    assert passed.count(True) == 20  # all of the backbone; those of the neck have batch statistics
    assert passed.count(False) == len([m for m in other.neck.modules() if is_norm(m)])
    twin = copy.deepcopy(other)
    with torch.no_grad():
        twin.backbone.bn1.weight.zero_()
    assert loss_of(twin, batch).item() != loss_of(other, batch).item()


def is_norm(module):
    return isinstance(module, nn.BatchNorm2d)


def vary_norms(model):
    torch.manual_seed(1)
    for module in filter(is_norm, model.backbone.modules()):
        nn.init.uniform_(module.weight, 0.5, 1.5)
        nn.init.normal_(module.bias)
        module.running_mean.normal_()
        module.running_var.uniform_(0.5, 2)


def test_norms_with_batch_statistics_are_not_folded(make):
    plain, _ = make()
    other, _ = make("fold_batch_norms=True")
    assert_same_step(plain, other, batch_of((64, 96), (64, 64)), rtol=0)


# --- gradient_checkpointing ---


@pytest.mark.parametrize("layout", ["channels_last=False", "channels_last=True"])
def test_gradients_and_statistics_with_checkpoints_are_those_without(make, layout):
    plain, _ = make(layout)
    other, _ = make(layout, "gradient_checkpointing=True")
    calls = []
    block = other.backbone.layer2[0]
    block.conv1.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    assert_same_step(plain, other, batch_of((64, 96), (64, 64)), rtol=1e-6)
    assert len(calls) == 2  # forward, and again for the backward pass
    assert list(other.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        loss_of(other, batch_of((64, 64), (64, 64)))
    assert len(calls) == 3


def test_less_is_kept_for_the_backward_pass(make):
    def kept(model):
        sizes = {}

        def note(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss_of(model, batch_of((96, 128), (96, 128)))
        return sum(sizes.values())

    assert kept(make("gradient_checkpointing=True")[0]) < 0.5 * kept(make()[0])


def test_a_copy_has_weights_of_its_own(make):
    model, _ = make("gradient_checkpointing=True")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.bbox_head.retina_cls.weight.zero_()
    batch = batch_of((64, 64), (64, 64))
    assert loss_of(model, batch).item() != loss_of(twin, batch).item()


# --- compile ---


def test_varied_sizes_are_compiled_as_often_as_there_are_padded_sizes(make):
    torch._dynamo.reset()
    compiled = []

    def count(graph, examples):
        compiled.append(graph)
        return graph

    plain, _ = make()
    model, _ = make(compiling={"sizes": 64, "backend": count})
    compiled.clear()  # of the trial at the start
    sizes = [(64, 96), (90, 128), (70, 100), (128, 64), (33, 128), (100, 40), (64, 128), (128, 33)]
    for size in sizes:
        loss_of(model, batch_of(size, size)).backward()
    padded = {(-(-h // 64), -(-w // 64)) for h, w in sizes}
    assert len(compiled) == len(padded) == 3
    assert list(model.state_dict()) == list(plain.state_dict())
    model.eval()
    with torch.no_grad():
        model(torch.rand(1, 3, 32, 32), mode="tensor")
    assert len(compiled) == 3  # predictions are not compiled
    torch._dynamo.reset()


def test_a_compiled_run_goes_on_as_one_that_is_not(tiny_config, tmp_path):
    """Images of 64 pixels need no padding, and the backend ``eager`` changes no operator."""
    torch._dynamo.reset()
    options = ["val_dataloader=None", *WIDER]

    def run(name, iterations, *more, resume=False):
        cfg = load_config(tiny_config, [*options, f"train_cfg.max_iters={iterations}", *more])
        result = train(cfg, work_dir=tmp_path / name, resume=resume, device="cpu")
        return read_checkpoint(result.last_checkpoint)["state_dict"]

    # the preprocessor that compile brings with it
    ours = "model.data_preprocessor.type=fldet.DetDataPreprocessor"
    whole = run("whole", 4, ours)
    run("parts", 2, *COMPILED)
    state = run("parts", 4, *COMPILED, resume=True)
    assert list(state) == list(whole)
    for name, value in whole.items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6, msg=name)
    torch._dynamo.reset()


def test_without_a_compiler_nothing_is_started():
    import torch._inductor.config

    without = torch._inductor.config.patch("cpp.cxx", ("no-such-compiler",))
    with without, pytest.raises(UnavailableError, match=r"torch.compile fails on cpu: .+") as error:
        require_compiler(CPU)
    assert "a C++ compiler" in error.value.expected
    assert error.value.hint.endswith("compile=False")


@pytest.mark.slow
def test_the_compiler_of_this_machine_gives_the_same_step(make):
    try:
        require_compiler(CPU)
    except UnavailableError as error:
        pytest.skip(str(error))
    plain, _ = make("model.data_preprocessor.type=fldet.DetDataPreprocessor")
    model, _ = make("compile=dict(sizes=[(64, 64), (64, 96)])")
    assert_same_step(plain, model, batch_of((64, 96), (64, 64)), rtol=1e-4)
    torch._dynamo.reset()


# --- padding to few sizes ---


def test_batches_are_padded_to_the_sizes_in_training_only(make):
    model, _ = make(compiling={"sizes": [(96, 128), (128, 96), (160, 160)], "backend": "eager"})
    for sizes, padded in [([(64, 64)], (96, 128)), ([(100, 70)], (128, 96)), ([(97, 97)], (128,))]:
        data = model.data_preprocessor(batch_of(*sizes), True)
        expected = padded if len(padded) == 2 else (160, 160)
        assert data["inputs"].shape[2:] == expected
        assert data["data_samples"][0].batch_input_shape == expected
        height, width = data["data_samples"][0].pad_shape
        assert (height, width) == tuple(-(-side // 32) * 32 for side in sizes[0])
        plain = model.data_preprocessor(batch_of(*sizes), False)["inputs"]
        assert plain.shape[2:] == (height, width)
        assert torch.equal(data["inputs"][:, :, :height, :width], plain)
    with pytest.raises(ConfigError, match="a batch of 192x64 pixels, padded, fits into none"):
        model.data_preprocessor(batch_of((190, 64)), True)


def test_no_anchor_of_the_padding_counts(make):
    def losses(size):
        model, _ = make(compiling={"sizes": [size], "backend": "eager"})
        data = model.data_preprocessor(batch_of((64, 90), (64, 64)), True)
        model.eval()
        maps = model(data["inputs"], mode="tensor")
        zeros = [[torch.zeros_like(m) for m in part] for part in maps]
        samples = data["data_samples"]
        metas = [sample.metainfo for sample in samples]
        return model.bbox_head.loss_by_feat(*zeros, [s.gt_instances for s in samples], metas)

    tight, wide = losses((64, 96)), losses((128, 160))
    for name, value in tight.items():
        torch.testing.assert_close(wide[name], value)


# --- amp ---


def test_losses_are_computed_in_float32_without_autocast(make):
    model, _ = make("amp=True")
    seen = []

    def note(_module, inputs, output):
        assert not torch.is_autocast_enabled("cpu")
        seen.append((inputs[0][0].dtype, output.dtype))

    model.bbox_head.loss_cls.register_forward_hook(note)
    model.bbox_head.loss_bbox.register_forward_hook(note)
    gradients(model, batch_of((64, 64), (64, 64)), amp=True)
    boxes, scores = seen
    assert boxes == (torch.float32, torch.float32)
    # the raw maps: every block of them is taken to float32, see tests/losses/test_fused.py
    assert scores == (torch.bfloat16, torch.float32)


def test_amp_with_accumulated_gradients(make):
    model, _ = make("amp=True", "channels_last=True")
    batches = [batch_of((64, 96), (60, 80)), batch_of((64, 64), (64, 64))]
    start = copy.deepcopy(model.state_dict())
    single = [gradients(model, batch, amp=True) for batch in batches]
    plain = [gradients_of_the_formula(model, batch) for batch in batches]
    model.load_state_dict(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    wrapper = Bfloat16OptimWrapper(optimizer=optimizer, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 2)
    model.zero_grad()
    for batch in batches:
        with wrapper.optim_context(model):
            losses = model(**model.data_preprocessor(copy.deepcopy(batch), True), mode="loss")
        wrapper.update_params(sum(losses.values()))
    for name, parameter in model.named_parameters():
        mean = (single[0][name] + single[1][name]) / 2
        step = start[name] - parameter.detach()
        assert float((step - mean).abs().max()) <= 1e-5 * float(mean.abs().max()) + 1e-6, name
        other = (plain[0][name] + plain[1][name]) / 2
        assert float((mean - other).norm()) <= 0.02 * float(other.norm()), name


def gradients_of_the_formula(model, batch):
    """The gradients with the ordinary loss by autograd, in the place of the fast one."""
    loss = model.bbox_head.loss_cls
    curve = loss.formula
    loss.formula = lambda x_t: curve(x_t)  # which has no kernel
    try:
        return gradients(model, batch, amp=True)
    finally:
        loss.formula = curve


@pytest.mark.gpu
def test_a_run_on_a_gpu_pins_memory_and_fetches_ahead(tiny_config, tmp_path):
    options = [*WIDER, "val_dataloader=None", "amp=True", "channels_last=True"]

    def run(name, iterations, resume=False):
        cfg = load_config(tiny_config, [*options, f"train_cfg.max_iters={iterations}"])
        result = train(cfg, work_dir=tmp_path / name, resume=resume, device="cuda")
        return read_checkpoint(result.last_checkpoint)["state_dict"]

    whole = run("whole", 4)
    run("parts", 2)
    state = run("parts", 4, resume=True)
    for name, value in whole.items():
        torch.testing.assert_close(state[name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert load_config(tmp_path / "whole" / "tiny.py").train_dataloader.pin_memory is True


def test_the_log_says_what_is_used(tiny_config, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    monkeypatch.setattr("fldet.config.train_step.has_bfloat16", lambda device: False)
    caplog.set_level(logging.INFO, "fldet")
    options = [*WIDER, "train_cfg.max_iters=1", "val_dataloader=None", "channels_last=True"]
    cfg = load_config(tiny_config, [*options, "gradient_checkpointing=True", "amp=True"])
    result = train(cfg, work_dir=tmp_path / "run", device="cpu")
    assert "training step: network in bfloat16, losses in float32; channels_last; " in caplog.text
    assert "no arithmetic for bfloat16" in caplog.text
    # the command line has the last word, and the work dir's own config can be trained again
    again = load_config(result.work_dir / "tiny.py")
    caplog.clear()
    train(again, work_dir=tmp_path / "again", amp=True, device="cpu")
    assert "network in bfloat16" in caplog.text
    caplog.clear()
    train(cfg, work_dir=tmp_path / "not", amp=False, device="cpu")
    assert "bfloat16" not in caplog.text


# --- what is refused ---


SSD_BOXES = {
    "type": "SSDAnchorGenerator",
    "input_size": 300,
    "strides": [8],
    "ratios": [[2]],
    "min_sizes": [30],
    "max_sizes": [60],
}


class TwoStages(nn.Module):
    """Put together as MMDetection's two-stage detectors are."""

    def __init__(self):
        super().__init__()
        self.backbone, self.rpn_head, self.roi_head = (nn.Sequential() for _ in range(3))

    def loss(self):
        """Is its own."""


@pytest.mark.parametrize("line", ["compile", "gradient_checkpointing"])
def test_a_detector_of_two_stages_is_refused(line):
    cfg = Config({line: {"backend": "eager"}})
    with pytest.raises(ConfigError, match=f"{line}: a TwoStages without bbox_head has") as error:
        set_up_model(TwoStages(), cfg)
    assert "a single-stage detector" in error.value.expected


def test_checkpoints_with_a_head_that_takes_all_levels_at_once():
    model = TwoStages()
    model.bbox_head = nn.Identity()
    with pytest.raises(ConfigError, match="a TwoStages with Identity has no function for a level"):
        set_up_model(model, Config({"gradient_checkpointing": True}))


def test_checkpoints_with_a_head_that_inherits_a_function_it_never_calls():
    """SSDHead of MMDetection goes over its levels itself, past AnchorHead's forward_single."""
    from mmdet.models.dense_heads import RetinaHead as Stock
    from mmdet.models.dense_heads import SSDHead

    model = TwoStages()
    model.bbox_head = SSDHead(num_classes=2, in_channels=(8,), anchor_generator=SSD_BOXES)
    assert hasattr(model.bbox_head, "forward_single")
    with pytest.raises(ConfigError, match="a TwoStages with SSDHead has no function for a level"):
        set_up_model(model, Config({"gradient_checkpointing": True}))

    class Adorned(Stock):
        def forward(self, maps):
            return super().forward(maps)

    model.bbox_head = Adorned(num_classes=2, in_channels=8)
    set_up_model(model, Config({"gradient_checkpointing": True}))
