"""Formats of annotations of other tools: which one it is, and what to do where it is not read."""

import re
from dataclasses import dataclass
from pathlib import Path

from fldet.data.folders import files_below
from fldet.data.image_files import IMAGE_ENDINGS
from fldet.errors import DataError
from fldet.files import KIB, read_bytes

_START = 64 * KIB  # of a file that is looked at
_FILES = 10  # of a kind that are looked at
_DATUM = "datum convert -if {} -i PATH -f coco -o OUT, of the package datumaro, converts it"
_EXPORT = "export it again from {} as {}"


@dataclass(frozen=True)
class Foreign:
    """A format, and what to do about it."""

    name: str
    file: str  # pattern of the ends of its files' names
    words: tuple[str, ...]  # patterns in the first part of a file; none where the name tells
    advice: str = ""
    read_as: str = ""  # the format of ``fldet.ImportedDataset``, where it is read

    def matches(self, file: Path) -> bool:
        """Returns whether a file is of the format."""
        if not re.search(rf"{self.file}$", file.name, re.IGNORECASE):
            return False
        start = _start(file) if self.words else ""
        return all(re.search(word, start) for word in self.words)


_NUMBER = r"-?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?"
_XML, _JSON, _CSV, _TXT = r"\.xml", r"\.json", r"\.csv", r"\.txt"
FORMATS = (
    Foreign(
        "CVAT's own XML",
        _XML,
        (r"<annotations\b", r"<version>|<meta>|<image\b[^>]{0,500}\b(id|name)=|<track\b"),
        read_as="CVAT",
    ),
    Foreign(
        "the XML of dlib's imglab",
        _XML,
        (r"<dataset\b", r"<image\b[^>]{0,500}\bfile="),
        _EXPORT.format("imglab", "COCO or Pascal VOC"),
    ),
    Foreign(
        "the XML of a labelling interface of Label Studio, not annotations",
        _XML,
        (r"<View\b",),
        _EXPORT.format("Label Studio", "COCO, Pascal VOC XML or YOLO"),
    ),
    Foreign(
        "labelme's JSON",
        _JSON,
        (r'"shapes"\s*:', r'"imagePath"|"imageData"|"points"'),
        read_as="labelme",
    ),
    Foreign(
        "Label Studio's JSON",
        _JSON,
        (r'"original_width"|"rectanglelabels"|"completed_by"|"polygonlabels"|"model_version"',),
        read_as="Label Studio",
    ),
    Foreign(
        "the JSON of the VGG Image Annotator (VIA)",
        _JSON,
        (r'"_via_|"shape_attributes"|"file_attributes"',),
        _EXPORT.format("VIA", "COCO format"),
    ),
    Foreign(
        "CreateML's JSON",
        _JSON,
        (r'"annotations?"\s*:', r'"coordinates"\s*:', r'"label"\s*:'),
        _EXPORT.format("the tool that made it", "COCO, Pascal VOC or YOLO"),
    ),
    Foreign(
        "VoTT's JSON",
        _JSON,
        (r'"assets?"\s*:', r'"regions"\s*:|"visitedStates"|"securityToken"|"sourceConnection"'),
        _EXPORT.format("VoTT", "Pascal VOC"),
    ),
    Foreign(
        "Datumaro's JSON",
        _JSON,
        (r'"items"\s*:', r'"dm_format_version"|"label_id"|"categories"\s*:\s*\{'),
        _DATUM.format("datumaro"),
    ),
    Foreign(
        "Supervisely's JSON",
        _JSON,
        (
            r'"objects"\s*:|"classes"\s*:',
            r'"classTitle"|"classId"|"exterior"|"projectType"|"geometry_config"',
        ),
        _EXPORT.format("Supervisely", "COCO, with its app 'Export to COCO'"),
    ),
    Foreign(
        "the JSON of BDD100K and Scalabel",
        _JSON,
        (r'"box2d"',),
        "bdd100k.label.to_coco, of BDD100K's own toolkit, converts it",
    ),
    Foreign(
        "Labelbox's JSON",
        r"\.(nd)?json",
        (r'"data_row"|"dataRow"|"Labeled Data"',),
        _EXPORT.format("Labelbox", "COCO, with its own converters"),
    ),
    Foreign(
        "COCO's results: detections of a model, not annotations",
        _JSON,
        (r"^\s*\[", r'"image_id"\s*:', r'"bbox"\s*:', r'"score"\s*:'),
        "name the annotation file; fldet test writes and analyzes results",
    ),
    Foreign(
        "a manifest of SageMaker Ground Truth",
        r"\.(manifest|jsonl|json)",
        (r'"source-ref"',),
        "write its boxes as COCO: images, annotations, categories",
    ),
    Foreign(
        "an image folder of Hugging Face",
        r"\.jsonl",
        (r'"file_name"',),
        "write its objects as COCO: images, annotations, categories",
    ),
    Foreign(
        "the CSV of Open Images", _CSV, ("ImageID", "XMin", "XMax"), _DATUM.format("open_images")
    ),
    Foreign(
        "the CSV of the VGG Image Annotator (VIA)",
        _CSV,
        ("region_shape_attributes",),
        _EXPORT.format("VIA", "COCO format"),
    ),
    Foreign(
        "DOTA's text with turned boxes",
        _TXT,
        (rf"(?m)^(imagesource|gsd):|^({_NUMBER}\s+){{8}}[A-Za-z][\w-]*(\s+\d)?\s*$",),
        "write the upright boxes around them as COCO or YOLO",
    ),
    Foreign(
        "KITTI's text",
        _TXT,
        (rf"(?m)^[A-Za-z_]+(\s+{_NUMBER}){{14,15}}\s*$",),
        read_as="KITTI",
    ),
    Foreign(
        "WIDER FACE's text",
        _TXT,
        (r"(?m)^\S.*\.jpg\s*\n\d+\s*\n(\d+\s+){4}",),
        _DATUM.format("wider_face"),
    ),
    Foreign(
        "VisDrone's text",
        _TXT,
        (r"(?m)^(-?\d+,){7}-?\d+,?\s*$",),
        "write its boxes as COCO or YOLO; Ultralytics has a script for it",
    ),
    Foreign(
        "MOT's text", _TXT, (rf"(?m)^\d+,-?\d+(,{_NUMBER}){{5,8}}\s*$",), _DATUM.format("mot_seq")
    ),
    Foreign(
        "a list of images with boxes in pixels, as of keras-yolo3",
        _TXT,
        (r"(?im)^\S.*\.(jpe?g|png|bmp)\s+\d+(,\d+){4}(\s|$)",),
        _EXPORT.format("the tool that made it", "YOLO or COCO"),
    ),
    Foreign(
        "YOLO's text without the names of its classes",
        _TXT,
        (rf"^\s*\d+(\s+{_NUMBER}){{4,}}\s*(\n|$)",),
        "write classes.txt beside the images and labels: the name of class 0 on the first line, "
        "of class 1 on the second, ...",
    ),
    Foreign(
        "a table (CSV)",
        _CSV,
        (r"(?im)\bx_?min\b|bbox|\bx_?[01]\b|\bleft\b|^[^,\n]+(,\d+){4},[^,]+$|\bx\b.{0,40}\by\b",),
        read_as="CSV",
    ),
    Foreign(
        "TensorFlow's records",
        r"\.(tfrecords?|record)(-\d+-of-\d+)?",
        (),
        _DATUM.format("tf_detection_api"),
    ),
    Foreign(
        "a table of Hugging Face",
        r"\.(parquet|arrow)",
        (),
        "write its images as files and its objects as COCO",
    ),
    Foreign("MATLAB's data", r"\.mat", (), "write its boxes as COCO, with scipy.io.loadmat"),
    Foreign("LMDB", r"\.(mdb|lmdb)", (), "write its images as files, its boxes as COCO"),
    Foreign("an archive", r"\.(zip|tar|tgz|gz|bz2|xz|7z|rar)", (), "unpack it and name the folder"),
)


def foreign_format(path: Path) -> Foreign | None:
    """Returns the format of ``FORMATS`` that a file, or files in a folder, are in; or None."""
    files = files_below(path, [""], deepest=3) if path.is_dir() else [path]
    names = [one for one in files if not one.name.lower().endswith(IMAGE_ENDINGS)]
    starts: dict[Path, str] = {}
    for form in FORMATS:
        ends = re.compile(rf"{form.file}$", re.IGNORECASE)
        for file in [one for one in names if ends.search(one.name)][:_FILES]:
            if form.words and file not in starts:
                starts[file] = _start(file)
            if all(re.search(word, starts[file]) for word in form.words):
                return form
    return None


def _start(file: Path) -> str:
    """Returns the first part of a text, letters beyond ASCII as they come; nothing on failure."""
    try:
        data = read_bytes(file, most=_START, cut=True)
    except DataError:
        return ""
    text = data.replace(b"\0", b"").decode("latin-1")  # of UTF-16 the ASCII letters remain
    return text.lstrip("\xef\xbb\xbf\xff\xfe")  # marks of the byte order


def xml_root(file: Path) -> str:
    """Returns the name of the first tag of an XML file, the empty string if there is none."""
    text = re.sub(r"<[?!][^>]{0,1000}>", "", _start(file)[: 4 * KIB])
    found = re.search(r"<(?:[\w.-]+:)?([\w.-]+)", text)
    return found[1] if found else ""
