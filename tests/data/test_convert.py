import pytest

from fldet.data.coco import CocoDataset
from fldet.data.convert import convert
from fldet.data.voc import VOCDataset
from fldet.data.yolo import YOLODataset
from fldet.errors import UsageError


def instances(dataset):
    return [dataset.get_data_info(i)["instances"] for i in range(len(dataset))]


def as_coco(done):
    return CocoDataset(ann_file=str(done.path), data_prefix={"img": str(done.image_folder)})


def test_voc_there_and_back(voc_mini, tmp_path):
    root = voc_mini / "VOCdevkit" / "VOC2007"
    done = convert(root, tmp_path / "val.json", "val")
    assert (done.images, done.boxes, done.left_out) == (20, 65 + 46, 0)
    read = VOCDataset(
        data_root=str(root),
        ann_file="ImageSets/Main/val.txt",
        data_prefix={"img": "JPEGImages"},
    )
    written = as_coco(done)
    assert written.metainfo["classes"] == read.metainfo["classes"]
    assert written.load_data_list() == read.load_data_list()


def test_yolo_there_and_back(bccd_yolo, tmp_path):
    done = convert(bccd_yolo / "data.yaml", tmp_path / "a.json", "test")
    read = YOLODataset(data_root=str(bccd_yolo), ann_file="data.yaml", split="test")
    assert as_coco(done).load_data_list() == read.load_data_list()


def test_boxes_without_area_are_left_out_and_counted(bccd, tmp_path):
    done = convert(bccd / "BCCD" / "Annotations", tmp_path / "all.json")
    assert (done.images, done.boxes, done.left_out) == (364, 4886, 2)


def test_what_is_refused(bccd, tmp_path):
    (tmp_path / "a.json").write_text("")
    with pytest.raises(UsageError, match=r"a.json exists"):
        convert(bccd / "BCCD", tmp_path / "a.json", "val")
    with pytest.raises(UsageError, match="has the splits train, val, test"):
        convert(bccd / "BCCD", tmp_path / "b.json")
    with pytest.raises(UsageError, match="has no split 'all'"):
        convert(bccd / "BCCD", tmp_path / "b.json", "all")
    with pytest.raises(UsageError, match="in COCO format already"):
        convert(bccd, tmp_path / "b.json", "val")
    assert not (tmp_path / "b.json").exists()
