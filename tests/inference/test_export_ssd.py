"""SSD and DSSD as exported files find what their checkpoints find."""

import cv2
import numpy as np
import pytest
import torch

from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.errors import UsageError
from fldet.inference.detector import Detector
from fldet.inference.export import export
from fldet.inference.parity import match


@pytest.fixture
def onnx():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="pip install -r requirements/export.txt")


def write_checkpoint(folder, name, **test_cfg):
    """A narrow model whose random scores are far apart, as a run would have left it."""
    cfg = load_config(f"systems/shapes/{name}.py")
    cfg.model.backbone.base_channels = 8
    cfg.model.neck.update(in_channels=(16, 64), extra_channels=16, widths=(4,) * 5)
    cfg.model.bbox_head.update(in_channels=(16,) * 5)
    if "decoder_channels" in cfg.model.neck:
        cfg.model.neck.decoder_channels = 8
        cfg.model.bbox_head.feat_channels = 8
    if "nms_pre" in test_cfg:
        del cfg.model.test_cfg.nms_pre_per_class
    cfg.model.test_cfg.update(test_cfg)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    torch.nn.init.normal_(model.backbone.conv1.weight)
    with torch.no_grad():
        for _ in range(10):  # the statistics of the norms
            model.bbox_head(model.extract_feat(torch.randn(2, 3, 160, 160)))
        for towers, size in ((model.bbox_head.cls_convs, 0.1), (model.bbox_head.reg_convs, 0.05)):
            for tower in towers:
                torch.nn.init.normal_(tower[-1].weight, std=size)
    meta = {"cfg": cfg.pretty_text, "dataset_meta": {"classes": tuple("abcdef")}}
    path = folder / f"{name}.pth"
    torch.save({"meta": meta, "state_dict": model.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(1)
    for index, shape in enumerate([(160, 160), (100, 230), (64, 64)]):
        image = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), image)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "test_cfg"), [("dssd_r18", {}), ("ssd_r18", {"nms_pre": 100})])
def test_onnx_with_boxes(onnx, tmp_path, images, name, test_cfg):
    checkpoint = write_checkpoint(tmp_path, name, score_thr=0.1, **test_cfg)
    result = export(checkpoint, out=tmp_path / "ssd.onnx", check=str(images))
    assert result.within_tolerance
    assert result.post_process == "inside"
    assert (result.parity.images, result.parity.unmatched) == (3, 0)
    assert result.parity.boxes > 100
    # another number of images than at the export
    paths = sorted(images.glob("*.png")) * 2
    ours, theirs = (Detector.load(path, device="cpu") for path in (checkpoint, result.file))
    for one, other in zip(ours.predict(paths, 0.1), theirs.predict(paths, 0.1), strict=True):
        box, score, unmatched = match(one, other, 0.1, 200)
        assert (box < 1e-3, score < 1e-4, unmatched) == (True, True, 0)


@pytest.mark.parametrize("name", ["ssd_r18", "dssd_r18"])
def test_torchscript_with_raw_maps(tmp_path, images, name):
    checkpoint = write_checkpoint(tmp_path, name)
    result = export(checkpoint, format="torchscript", check=str(images))
    assert result.within_tolerance
    assert result.parity.boxes > 100


def test_images_of_several_sizes_are_refused(tmp_path):
    checkpoint = write_checkpoint(tmp_path, "ssd_r18")
    content = torch.load(checkpoint)
    content["meta"]["cfg"] = content["meta"]["cfg"].replace("keep_ratio=False", "keep_ratio=True")
    torch.save(content, checkpoint)
    with pytest.raises(UsageError, match="an SSD is exported for images of one size"):
        export(checkpoint, format="torchscript")
