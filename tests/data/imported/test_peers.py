"""The blood cells, written by other tools' own libraries and read by ours, or the other way."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from fldet.data.convert import convert
from fldet.data.formats.recognise import recognise

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about themselves


@pytest.fixture(scope="module")
def truth(bccd, tmp_path_factory):
    """The validation images as a COCO data set with images beside it."""
    root = tmp_path_factory.mktemp("peers")
    (root / "annotations").mkdir()
    (root / "images" / "val").mkdir(parents=True)
    content = json.loads((bccd / "annotations" / "val.json").read_text())
    content["images"] = content["images"][:20]
    ids = {one["id"] for one in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in ids]
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    for one in content["images"]:
        file = bccd / "BCCD" / "JPEGImages" / one["file_name"]
        shutil.copy(file, root / "images" / "val")
    return root


def boxes(content):
    """Returns how often each box of a class is in an image, in whole pixels."""
    names = {one["id"]: one["name"] for one in content["categories"]}
    files = {one["id"]: Path(one["file_name"]).stem for one in content["images"]}
    return Counter(
        (files[one["image_id"]], names[one["category_id"]], *(round(v) for v in one["bbox"]))
        for one in content["annotations"]
    )


def expected(truth):
    """Returns what each reader should find."""
    return boxes(json.loads((truth / "annotations" / "instances_val.json").read_text()))


@pytest.mark.parametrize(("name", "found"), [("cvat", "CVAT"), ("kitti_detection", "KITTI")])
def test_what_datumaro_writes_is_read(truth, tmp_path, name, found):
    datumaro = pytest.importorskip("datumaro")
    data = datumaro.Dataset.import_from(str(truth), "coco_instances")
    data.export(str(tmp_path / "out"), name, save_media=True)
    data = recognise(tmp_path / "out")
    assert data.format == found
    content = data.read(next(iter(data.splits)))
    assert len(content["images"]) == 20
    assert boxes(content) == expected(truth)
    done = convert(tmp_path / "out", tmp_path / "all.json")
    assert (done.images, done.boxes) == (20, expected(truth).total())


@pytest.mark.parametrize("name", ["labelme", "cvat"])
def test_what_globox_writes_is_read(truth, tmp_path, name):
    globox = pytest.importorskip("globox")
    data = globox.AnnotationSet.from_coco(truth / "annotations" / "instances_val.json")
    if name == "labelme":
        data.save_labelme(tmp_path)
    else:
        data.save_cvat(tmp_path / "annotations.xml")
    content = recognise(tmp_path, truth / "images" / "val").read("train")
    assert boxes(content) == expected(truth)


def test_label_studios_own_converter_finds_the_same(truth, tmp_path):
    converter = pytest.importorskip("label_studio_sdk.converter.converter")
    content = json.loads((truth / "annotations" / "instances_val.json").read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    tasks = []
    for image in content["images"]:
        w, h = image["width"], image["height"]
        results = []
        for one in content["annotations"]:
            if one["image_id"] == image["id"]:
                x, y, dx, dy = one["bbox"]
                value = {"x": 100 * x / w, "y": 100 * y / h, "rotation": 0}
                value |= {"width": 100 * dx / w, "height": 100 * dy / h}
                value["rectanglelabels"] = [names[one["category_id"]]]
                size = {"original_width": w, "original_height": h}
                tags = {"from_name": "label", "to_name": "image", "type": "rectanglelabels"}
                results.append({"id": str(one["id"]), **tags, **size, "value": value})
        made = {"id": image["id"], "result": results, "was_cancelled": False, "completed_by": 1}
        address = f"/data/upload/1/0a1b2c3d-{image['file_name']}"
        task = {"id": image["id"], "data": {"image": address}, "annotations": [made]}
        tasks.append(task)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "tasks.json").write_text(json.dumps(tasks))
    labels = "".join(f'<Label value="{name}"/>' for name in names.values())
    interface = (
        '<View><Image name="image" value="$image"/>'
        f'<RectangleLabels name="label" toName="image">{labels}</RectangleLabels></View>'
    )
    peer = converter.Converter(interface, str(tmp_path), download_resources=False)
    peer.convert_to_coco(str(tmp_path / "in"), str(tmp_path / "out"), is_dir=True)
    theirs = json.loads((tmp_path / "out" / "result.json").read_text())
    ours = recognise(tmp_path / "in", truth / "images" / "val").read("train")
    for one in theirs["images"]:
        one["file_name"] = Path(one["file_name"]).name.removeprefix("0a1b2c3d-")
    assert boxes(ours) == expected(truth)
    assert boxes(theirs) == expected(truth)
