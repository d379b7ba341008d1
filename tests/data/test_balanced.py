"""How often images of rare classes are listed."""

import logging
import math
from collections import Counter

import pytest
from mmengine.dataset import ClassBalancedDataset as MMEngineClassBalancedDataset
from mmengine.registry import init_default_scope

from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.data.balanced import ClassBalancedDataset
from fldet.data.formats.recognise import recognise
from fldet.registry import DATASETS


class Images:
    """Ten images; a class is a digit of their text, after a bracket where it is to be ignored."""

    texts = ("0", "0", "00", "0", "01", "01", "0", "02", "0(3", "")

    def __len__(self):
        return len(self.texts)

    def get_data_info(self, index):
        text = self.texts[index]
        return {
            "instances": [
                {"bbox_label": int(one), "ignore_flag": int(text[:place].endswith("("))}
                for place, one in enumerate(text)
                if one.isdigit()
            ]
        }


OFTEN, SOME, ONCE = math.sqrt(10 / 9), math.sqrt(10 / 2), math.sqrt(10 / 1)  # at a threshold of 1


@pytest.mark.parametrize(
    ("threshold", "factors"),
    [
        (0.1, [1] * 10),  # class 2 is in a tenth of the images
        (0.2, [1, 1, 1, 1, 1, 1, 1, math.sqrt(2), 1, 1]),
        (1.0, [OFTEN, OFTEN, OFTEN, OFTEN, SOME, SOME, OFTEN, ONCE, OFTEN, 1]),
    ],
)
def test_factors_of_a_table(threshold, factors, caplog):
    """An image without objects, or with those to be ignored alone, is listed once."""
    dataset = object.__new__(ClassBalancedDataset)
    with caplog.at_level(logging.WARNING, "fldet"):
        assert dataset._get_repeat_factors(Images(), threshold) == pytest.approx(factors)
    said = ["oversample 0.1 lists no image twice: the rarest class is in 1 of 10 images"]
    assert caplog.messages == (said if threshold == 0.1 else [])


def dataset_at(path, **changes):
    """The training images of a folder as fldet reads them."""
    init_default_scope("mmdet")
    found = recognise(path)
    kind = DATASETS.get(found.splits["train"]["type"])
    options = {**found.splits["train"], "data_root": str(found.root), "pipeline": [], **changes}
    return kind(**{key: value for key, value in options.items() if key != "type"})


@pytest.mark.parametrize("threshold", [0.1, 0.5])
@pytest.mark.parametrize("name", ["coco", "voc", "yolo"])
def test_every_format_tells_its_classes(name, threshold, coco_mini, voc_mini, bccd_yolo):
    paths = {"coco": coco_mini, "voc": voc_mini / "VOCdevkit" / "VOC2007", "yolo": bccd_yolo}
    dataset = dataset_at(paths[name])
    shown = [
        {
            box["bbox_label"]
            for box in dataset.get_data_info(i)["instances"]
            if not box["ignore_flag"]
        }
        for i in range(len(dataset))
    ]
    counts = Counter(label for labels in shown for label in labels)
    ours = ClassBalancedDataset(dataset, threshold)
    times = Counter(ours.repeat_indices)
    assert len(counts) > 2
    for index, labels in enumerate(shown):
        rarest = min((counts[label] for label in labels), default=len(dataset))
        assert times[index] == math.ceil(max(1, math.sqrt(threshold * len(dataset) / rarest)))
    if name == "yolo":  # nothing is to be ignored there
        theirs = MMEngineClassBalancedDataset(dataset, threshold)
        assert ours.repeat_indices == theirs.repeat_indices


def test_masks_of_the_documentation(masks):
    """docs/own-data.md has these numbers."""
    cfg = load_config("retinanet/r18_fpn_1x.py", [f"data_root={masks}"])
    listed = {}
    for threshold in (0.1, 0.3, 0.5):
        cfg.oversample = threshold
        prepared = prepare_config(cfg, phases=("train",))
        init_default_scope("mmdet")
        dataset = DATASETS.build(prepared.train_dataloader.dataset)
        listed[threshold] = sorted(Counter(Counter(dataset.repeat_indices).values()).items())
    assert listed == {0.1: [(1, 677)], 0.3: [(1, 598), (2, 79)], 0.5: [(1, 415), (2, 183), (3, 79)]}
