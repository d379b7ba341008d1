import json

import pytest

from fldet.data.foreign import foreign_format, xml_root
from fldet.data.formats.recognise import recognise
from fldet.errors import DataError

VIA = {
    "a.jpg1": {"filename": "a.jpg", "regions": [{"shape_attributes": {}}], "file_attributes": {}}
}
CREATE_ML = [
    {"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 1, "y": 1}}]},
]
FILES = {
    "the XML of dlib's imglab": [("a.xml", "<dataset><images><image file='a.jpg'>")],
    "the XML of a labelling interface of Label Studio": [
        ("a.xml", "<View><Image name='i'/></View>")
    ],
    "the JSON of the VGG Image Annotator": [
        ("a.json", json.dumps(VIA)),
        ("b.json", json.dumps({"_via_settings": {}, "_via_img_metadata": VIA})),
    ],
    "CreateML's JSON": [("_annotations.createml.json", json.dumps(CREATE_ML))],
    "VoTT's JSON": [("a.json", json.dumps({"asset": {"name": "a.jpg"}, "regions": []}))],
    "Datumaro's JSON": [
        ("annotations/default.json", json.dumps({"dm_format_version": "1.0", "items": []}))
    ],
    "Supervisely's JSON": [
        ("ds/ann/a.jpg.json", json.dumps({"objects": [{"classTitle": "cat"}]})),
        ("meta.json", json.dumps({"classes": [], "projectType": "images"})),
    ],
    "the JSON of BDD100K": [("a.json", json.dumps([{"name": "a", "labels": [{"box2d": {}}]}]))],
    "Labelbox's JSON": [("a.ndjson", json.dumps({"data_row": {"id": "1"}}))],
    "COCO's results": [
        ("a.json", json.dumps([{"image_id": 1, "category_id": 1, "bbox": [], "score": 0.5}]))
    ],
    "an image folder of Hugging Face": [
        ("train/metadata.jsonl", json.dumps({"file_name": "a.jpg", "objects": {"bbox": []}}))
    ],
    "the CSV of Open Images": [("a.csv", "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin\n")],
    "the CSV of the VGG": [("a.csv", "filename,file_size,region_count,region_shape_attributes\n")],
    "DOTA's text": [
        ("a.txt", "imagesource:GoogleEarth\ngsd:0.14\n1.0 2.0 3.0 4.0 5 6 7 8 plane 0\n"),
        ("b.txt", "1 2 3 4 5 6 7 8 small-vehicle 1\n"),
    ],
    "WIDER FACE's text": [("a.txt", "0--Parade/0.jpg\n1\n449 330 122 149 0 0 0 0 0 0 \n")],
    "VisDrone's text": [("a.txt", "684,8,273,116,0,0,0,0\n406,119,265,70,0,0,0,0")],
    "MOT's text": [("gt/gt.txt", "1,1,912,484,97,109,0,7,1\n")],
    "a list of images with boxes": [("_annotations.txt", "a.jpg 1,2,3,4,0 5,6,7,8,1\n")],
    "YOLO's text without": [
        ("labels/a.txt", "0 0.5 0.5 0.25 0.25\n"),
        ("b.txt", "\ufeff1 .5 .5 .25 .25 .75 .75\r\n"),
    ],
    "TensorFlow's records": [("a.tfrecord", "x"), ("train.record-00001-of-00010", "x")],
    "a table of Hugging Face": [("data/train-00000-of-00001.parquet", "x")],
    "an archive": [("a.zip", "x"), ("a.tar.gz", "x")],
}
READ = {
    "CVAT": [
        ("annotations.xml", "<?xml version='1.0'?>\n<annotations>\n<version>1.1</version>"),
        ("a/b/t.xml", "<annotations><meta/><track id='0' label='car'>"),
        ("a.xml", "<annotations count='1'><image id='0' name='a.jpg'>"),
    ],
    "labelme": [
        ("a.json", json.dumps({"version": "5", "shapes": [], "imagePath": "a.jpg"})),
        ("sub/a.json", json.dumps({"flags": {}, "shapes": [{"points": [[1, 2]]}]}, indent=2)),
    ],
    "Label Studio": [
        ("a.json", json.dumps([{"id": 1, "annotations": [{"completed_by": 1, "result": []}]}])),
        ("min.json", json.dumps([{"image": "a", "label": [{"rectanglelabels": ["cat"]}]}])),
    ],
    "CSV": [
        ("a.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\n"),
        ("b.CSV", "image_id,width,height,bbox,source\n"),
    ],
    "KITTI": [
        (
            "label_2/0.txt",
            "Car 0.00 0 -1.58 587.0 173.3 614.1 200.1 1.6 1.7 3.7 -0.6 1.7 46 -1.5",
        )
    ],
}
CASES = [(name, *file) for name, files in FILES.items() for file in files]


@pytest.mark.parametrize(("name", "file", "text"), CASES)
def test_other_formats_are_named_with_what_to_do(tmp_path, name, file, text):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    (tmp_path / "a.jpg").touch()
    for target in (tmp_path, path):
        with pytest.raises(DataError) as error:
            recognise(target)
        assert error.value.message.startswith(f"{target} holds {name}"), error.value
        assert error.value.hint


@pytest.mark.parametrize(
    ("name", "file", "text"), [(name, *file) for name, files in READ.items() for file in files]
)
def test_formats_that_are_read_are_known_by_their_files(tmp_path, name, file, text):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    (tmp_path / "a.jpg").touch()
    for target in (tmp_path, path):
        assert foreign_format(target).read_as == name


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_in_other_encodings_too(tmp_path, encoding):
    file = tmp_path / "a.json"
    file.write_bytes(json.dumps({"shapes": [], "imagePath": "a.jpg"}).encode(encoding))
    assert foreign_format(tmp_path).name == "labelme's JSON"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.txt", "a note"),
        ("package.json", "{}"),
        ("a.csv", "a,b\n"),
        (".hidden.zip", ""),
        ("a", ""),
    ],
)
def test_what_is_of_no_kind(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    assert foreign_format(tmp_path) is None
    with pytest.raises(DataError, match="is no data set that fldet knows"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("<?xml version='1.0'?>\n<!-- a <b> -->\n<!DOCTYPE a>\n<annotation>", "annotation"),
        ("<v:annotation xmlns:v='urn:v'>", "annotation"),
        ("no XML", ""),
        ("", ""),
        ("<!" * 30_000, ""),
    ],
)
def test_the_first_tag_of_xml(tmp_path, text, root):
    (tmp_path / "a.xml").write_text(text)
    assert xml_root(tmp_path / "a.xml") == root
