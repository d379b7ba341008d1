import json
import math
import shutil

import pytest
import torch
from mmengine.registry import init_default_scope

from fldet.analysis.init import init_config, iterations, median_scale
from fldet.analysis.init_data import oversampling
from fldet.analysis.init_models import RECIPES, default_model
from fldet.analysis.init_text import augmentation_for
from fldet.checkpoints import packaged
from fldet.cli.init import parse_size
from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.engine.hooks.lines import hooks_of_lines
from fldet.errors import CheckpointError, DataError, UsageError
from fldet.registry import DATASETS, MODELS


def written(path, tmp_path, *, model="r18", **options):
    """The result, the text of the config, and the config as a run would have it."""
    result = init_config(path, tmp_path / "my.py", model=model, **options)
    cfg = prepare_config(load_config(result.path), phases=("train", "val", "test"))
    return result, result.path.read_text(), cfg


@pytest.mark.parametrize("name", ["coco", "voc", "yolo"])
def test_blood_cells_in_each_format(name, bccd, bccd_yolo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = {"coco": bccd, "voc": bccd / "BCCD", "yolo": bccd_yolo}[name]
    result, text, cfg = written(path, tmp_path)
    assert (result.images, result.scale, result.max_iters) == (205, (640, 480), 2000)
    assert sorted(result.classes) == ["Platelets", "RBC", "WBC"]
    assert len(text.splitlines()) <= 60
    assert max(map(len, text.splitlines())) <= 100
    assert cfg.model.bbox_head.num_classes == 3
    assert cfg.model.backbone.depth == 18
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (640, 480)
    assert cfg.test_dataloader.dataset.metainfo.classes == result.classes
    evaluator = cfg.test_evaluator[1] if name == "voc" else cfg.test_evaluator
    assert ("ann_file" in evaluator) == (name == "coco")
    assert ("dataset" in evaluator) == (name != "coco")


def test_anchors_are_fitted_where_that_gains_two_points(coco_mini, tmp_path):
    result, text, cfg = written(coco_mini, tmp_path)
    assert result.anchors - result.anchors_before > 0.1
    assert cfg.model.bbox_head.anchor_generator.sizes == [16, 32, 64, 128, 256]
    assert f"Fitted: {100 * result.anchors:.0f} % of the training boxes" in text
    assert "classes = None  # all 80 of the files" in text


def test_names_with_spaces_and_quotes(tiny_coco, tmp_path):
    """Lines break between names, never inside."""
    folder = tmp_path / "it's a folder with a long name, and with spaces, so that lines must break"
    for name in ("train2017", "val2017"):
        (folder / "my images").mkdir(parents=True, exist_ok=True)
        (folder / "my images" / name).symlink_to(tiny_coco / name)
    (folder / "annotations").mkdir()
    for name in ("train", "val"):
        file = tiny_coco / "annotations" / f"instances_{name}2017.json"
        content = json.loads(file.read_text())
        content["categories"] = [
            {**one, "name": f"a {one['name']} of   many words: it's {'very ' * 8}square"}
            for one in content["categories"]
        ]
        target = folder / "annotations" / f"a rather long name of a file, {name}.json"
        target.write_text(json.dumps(content))
    result, _, cfg = written(folder, tmp_path)
    assert cfg.train_dataloader.dataset.metainfo.classes == result.classes
    assert all("of   many words: it's very very" in name for name in result.classes)
    assert cfg.data_root == str(folder)


def test_model_and_size(tiny_coco, tmp_path):
    result, text, cfg = written(tiny_coco, tmp_path, model="r50", size=(128, 96))
    assert (cfg.model.backbone.depth, result.scale) == (50, (128, 96))
    assert "resnet50.pth" in text
    assert result.batch_size == 6  # there are no more images


@pytest.mark.parametrize(
    ("images", "preset"),
    [(1, "small"), (999, "small"), (1000, "medium"), (9999, "medium"), (10_000, "none")],
)
def test_augmentation_by_the_number_of_images(images, preset):
    assert augmentation_for(images) == preset


def test_few_images_are_augmented_and_anchors_fit_them_as_they_are(
    coco_mini, tmp_path, monkeypatch
):
    result, text, cfg = written(coco_mini, tmp_path)
    assert "augment = 'small'" in text
    assert cfg.train_dataloader.dataset.dataset.pipeline[3].type == "fldet.RandomCrop"
    monkeypatch.setattr("fldet.analysis.init_text.augmentation_for", lambda images: "none")
    (tmp_path / "more").mkdir()
    plain, text, cfg = written(coco_mini, tmp_path / "more")
    assert "augment" not in text
    assert cfg.train_dataloader.dataset.dataset.pipeline[2].type == "Resize"
    assert (plain.anchors, plain.anchors_before) == (result.anchors, result.anchors_before)


@pytest.mark.parametrize(
    ("model", "preset", "tested"),
    [
        ("lite", "small", (640, 480)),
        ("lite", "medium", (512, 384)),
        ("lite", "none", (512, 384)),
        ("small", "small", (320, 240)),
    ],
)
def test_sizes_in_training_and_in_tests(bccd, tmp_path, monkeypatch, model, preset, tested):
    monkeypatch.setattr("fldet.analysis.init_text.augmentation_for", lambda images: preset)
    result, _, cfg = written(bccd, tmp_path, model=model)
    assert (
        cfg.train_pipeline[2].scale == result.scale == ((512, 384) if model == "lite" else tested)
    )
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.pipeline[1].scale == tested


def test_the_small_model_starts_from_nothing(bccd, tiny_coco, tmp_path):
    result, text, cfg = written(bccd / "BCCD", tmp_path, model="small")
    assert (result.scale, result.max_iters) == ((320, 240), 1000)
    assert (cfg.model.backbone.base_channels, cfg.model.backbone.init_cfg) == (32, None)
    assert cfg.optim_wrapper.optimizer.type == "AdamW"
    assert [one.end for one in cfg.param_scheduler] == [50, 1000]
    assert "ImageNet" not in text
    (tmp_path / "more").mkdir()
    own = MODELS.build(cfg.model).state_dict()
    torch.save({"state_dict": own}, tmp_path / "small.pth")
    _, _, tuned = written(
        tiny_coco, tmp_path / "more", model="small", finetune=tmp_path / "small.pth"
    )
    assert tuned.load_from == str(tmp_path / "small.pth")
    assert tuned.model.backbone.base_channels == 32
    assert tuned.optim_wrapper.optimizer.type == "SGD"


def test_without_a_gpu_the_light_model_is_written(bccd, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    result, _, cfg = written(bccd, tmp_path, model=None)
    assert (result.model, result.scale, result.batch_size) == ("lite", (512, 384), 4)
    assert cfg.model.backbone.type == "fldet.EfficientNetLite"
    assert (cfg.channels_last, cfg.fold_batch_norms) == (True, True)
    assert cfg.optim_wrapper.optimizer.type == "SGD"
    assert [one.end for one in cfg.param_scheduler] == [100, 1000] == [100, cfg.train_cfg.max_iters]
    assert "pip install 'fldet[weights]'" in caplog.text
    MODELS.build(cfg.model)  # its weights are read when it starts
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_model() == "r18"


def test_the_light_model_starts_from_a_light_detector(tiny_coco, tmp_path):
    _, _, cfg = written(tiny_coco, tmp_path, model="lite")
    init_default_scope("mmdet")
    torch.save({"state_dict": MODELS.build(cfg.model).state_dict()}, tmp_path / "lite.pth")
    (tmp_path / "more").mkdir()
    _, _, tuned = written(
        tiny_coco, tmp_path / "more", model="lite", finetune=tmp_path / "lite.pth"
    )
    assert (tuned.model.backbone.init_cfg, tuned.ema) == (None, True)
    rate = tuned.optim_wrapper.optimizer.lr / tuned.auto_scale_lr.base_batch_size
    plain = cfg.optim_wrapper.optimizer.lr / cfg.auto_scale_lr.base_batch_size
    assert rate == plain / 4


def test_small_images_are_enlarged_for_the_light_model_alone(tmp_path):
    images = [{"width": 400, "height": 300}, {"width": 300, "height": 400}]
    assert median_scale(images, (512, 512)) == (400, 300)
    assert median_scale(images, (512, 512), enlarges=True) == (512, 384)
    assert median_scale([{"width": 4000, "height": 1000}], (512, 512), enlarges=True) == (512, 128)


def of_images(*counts, images):
    """Annotations of as many images for each class, and one crowd of a class that is rarer."""
    boxes = [
        {"category_id": number, "image_id": image}
        for number, count in enumerate(counts)
        for image in range(count)
        for _ in range(2)
    ]
    crowd = {"category_id": 99, "image_id": 0, "iscrowd": 1}
    return {"images": [{}] * images, "annotations": [*boxes, crowd]}


@pytest.mark.parametrize(
    ("counts", "images", "expected"),
    [
        ((613, 221, 79), 677, 0.5),
        ((400, 100), 1000, None),
        ((401, 100), 1000, 0.5),
        ((500, 10), 1000, 0.09),
        ((5,), 1000, None),
        ((), 10, None),
    ],
)
def test_rare_classes_are_listed_three_times_at_most(counts, images, expected):
    found = oversampling(of_images(*counts, images=images))
    assert found == expected
    if expected:
        assert math.ceil(math.sqrt(expected * images / min(counts))) <= 3


def test_rare_classes_get_a_line(masks, tmp_path):
    _, text, cfg = written(masks, tmp_path)
    assert "oversample = 0.5  # images of rare classes more often" in text
    assert cfg.train_dataloader.dataset.type == "fldet.ClassBalancedDataset"


def test_twenty_classes_and_fitted_anchors_fit_on_sixty_lines(voc_mini, tmp_path):
    _, text, cfg = written(voc_mini / "VOCdevkit" / "VOC2007", tmp_path)
    assert "Fitted" in text
    assert len(text.splitlines()) <= 60
    assert [metric.type for metric in cfg.val_evaluator] == ["fldet.CocoMetric", "fldet.VOCMetric"]


def test_the_group_of_roboflow_is_no_class(roboflow, tmp_path):
    result, text, cfg = written(roboflow, tmp_path)
    assert result.classes == ("circle", "square")
    assert "# 'shapes' is no class" in text
    assert cfg.train_dataloader.dataset.metainfo.classes == ("circle", "square")


def test_without_images_to_validate_on(tiny_coco, tmp_path):
    path = tiny_coco / "annotations" / "instances_train2017.json"
    result = init_config(path, tmp_path / "my.py", val=0)
    cfg = prepare_config(load_config(result.path), phases=("train",))
    assert cfg.val_dataloader is None
    assert (result.validation, result.set_aside) == (0, None)
    assert "no images to validate on" in result.path.read_text()


def test_test_images_validate_where_there_are_no_others(bccd_yolo, tmp_path):
    text = (bccd_yolo / "data.yaml").read_text().replace("val: images/val\n", "")
    for name in ("images", "labels"):
        (tmp_path / name).symlink_to(bccd_yolo / name)
    (tmp_path / "data.yaml").write_text(text)
    _, text, cfg = written(tmp_path, tmp_path)
    assert "There is no split for validation: the test images." in text
    assert cfg.val_dataloader.dataset.split == "test"


@pytest.mark.parametrize(
    ("images", "batch", "expected"),
    [
        (1, 1, 2000),
        (205, 8, 2000),
        (1334, 8, 2100),  # 2001 is rounded up
        (118_287, 16, 88_800),  # COCO: as good as the paper's 90,000
        (10_000_000, 4, 90_000),
    ],
)
def test_iterations(images, batch, expected):
    assert iterations(RECIPES["r18"], images, batch) == expected


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(640, 480)], (640, 480)),
        ([(480, 640), (640, 480), (100, 100)], (640, 480)),  # turned ones count alike
        ([(4000, 3000)], (1067, 800)),
        ([(3000, 40)], (1333, 18)),
    ],
)
def test_scale(sizes, expected):
    assert median_scale([{"width": w, "height": h} for w, h in sizes], (1333, 800)) == expected


def test_images_may_lie_elsewhere(tiny_coco, tmp_path, fldet):
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "labels.json"
    shutil.copy(tiny_coco / "annotations" / "instances_train2017.json", file)
    refused = fldet("init", file, "--out", tmp_path / "my.py", "--model", "small")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--images FOLDER names the folder" in refused.stderr
    made = fldet(
        *("init", file, "--images", tiny_coco / "train2017"),
        *("--out", tmp_path / "my.py", "--model", "small", "-q"),
    )
    assert made.returncode == 0, made.stderr
    cfg = prepare_config(load_config(tmp_path / "my.py"), phases=("train",))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.get_data_info(0)["img_path"].startswith(str(tiny_coco / "train2017"))
    looked = fldet("data", "inspect", file, "--images", tiny_coco / "train2017", "--json")
    assert json.loads(looked.stdout)["result"]["splits"]["train"]["suspicious"] == {}


def test_what_inspect_notes_is_said_by_init_and_convert_too(bccd, tmp_path, fldet):
    for name in ("Annotations", "JPEGImages"):
        (tmp_path / name).symlink_to(bccd / "BCCD" / name)
    lists = tmp_path / "ImageSets" / "Layout"
    lists.mkdir(parents=True)
    shutil.copy(bccd / "BCCD" / "ImageSets" / "Main" / "val.txt", lists)
    note = "lists that are not used: ImageSets/Layout/val.txt;"
    for arguments in (
        ("data", "inspect", tmp_path),
        ("init", tmp_path, "--out", tmp_path / "my.py", "--model", "small"),
        ("data", "convert", tmp_path, tmp_path / "all.json"),
    ):
        done = fldet(*arguments)
        assert done.returncode == 0, done.stderr
        assert note in " ".join((done.stdout + done.stderr).split())


def test_what_is_refused(tiny_coco, tmp_path):
    path = tmp_path / "my.py"
    with pytest.raises(UsageError, match="unknown model 'r34'"):
        init_config(tiny_coco, path, model="r34")
    with pytest.raises(UsageError, match=r"is not a .py file"):
        init_config(tiny_coco, tmp_path / "my.txt")
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"my.py exists"):
        init_config(tiny_coco, path)
    assert path.read_text() == "mine"
    with pytest.raises(DataError, match="an image has no 'width'"):
        median_scale([{"height": 1}], (1333, 800))
    for text in ("640", "0x3", "ax3"):
        with pytest.raises(UsageError, match="is not WxH"):
            parse_size(text)
    assert parse_size("480x640") == (640, 480)


def test_without_training_images_or_boxes(tiny_coco, bad_inputs, tmp_path):
    with pytest.raises(DataError, match="has no training images, only val"):
        init_config(tiny_coco / "annotations" / "instances_val2017.json", tmp_path / "a.py")
    with pytest.raises(DataError, match=r"the training images of .* have no boxes"):
        init_config(bad_inputs / "annotations" / "no_annotations_at_all.json", tmp_path / "a.py")
    assert not (tmp_path / "a.py").exists()


@pytest.mark.parametrize("with_validation", [True, False])
def test_starting_from_a_detector(tiny_coco, roboflow, tmp_path, with_validation):
    if not with_validation:
        (roboflow / "valid" / "_annotations.coco.json").unlink()
    cfg = load_config("retinanet/r18_fpn_1x.py", ["model.bbox_head.num_classes=7"])
    init_default_scope("mmdet")
    cfg.model.backbone.init_cfg = None
    torch.save({"state_dict": MODELS.build(cfg.model).state_dict()}, tmp_path / "r18.pth")
    with pytest.raises(CheckpointError, match="does not fit --model r50") as error:
        written(roboflow, tmp_path, model="r50", finetune=tmp_path / "r18.pth")
    assert error.value.hint.startswith("--model r18")
    assert not (tmp_path / "my.py").exists()
    val = None if with_validation else 0
    init_config(roboflow, tmp_path / "my.py", model="r18", finetune=tmp_path / "r18.pth", val=val)
    found = load_config(tmp_path / "my.py")
    assert found.load_from == str(tmp_path / "r18.pth")
    assert (found.model.backbone.depth, found.model.backbone.init_cfg) == (18, None)
    assert (found.ema, found.early_stopping) == (True, 5 if with_validation else False)
    assert [
        type(hook).__name__ for hook in hooks_of_lines(prepare_config(found, phases=("train",)))
    ] == [
        "EMAHook",
        *(["EarlyStoppingHook"] if with_validation else []),
    ]
    assert found.optim_wrapper.clip_grad.max_norm == 10
