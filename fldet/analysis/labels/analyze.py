"""``fldet analyze labels`` as a function."""

from pathlib import Path

from fldet.analysis.labels.compute import find_label_errors
from fldet.analysis.labels.labelling import write_coco, write_label_studio
from fldet.analysis.labels.page import write_page
from fldet.analysis.labels.result import FILE, LabelAnalysis, save
from fldet.evaluation.detected import read_detected
from fldet.results import ANALYSES, Analysis


def analyze_labels(
    folder: Path | None = None,
    *,
    detections: Path | None = None,
    annotations: Path | None = None,
    images: Path | None = None,
    most: int = 200,
    out_dir: Path = ANALYSES / "labels",
) -> Analysis[LabelAnalysis]:
    """Ranks annotations by how likely they are wrong, for people to look at.

    The models must not have been trained on the images that they are asked about.

    Args:
        folder: of ``fldet cross-validate``.
        detections: in the COCO results format, and
        annotations: their truth in COCO's format; both in the place of a folder.
        images: their folder, where it is another than the annotations say.
        most: so many findings are on the page.
        out_dir: for ``labels.json``, the page, and the files for labelling tools.

    Raises:
        UsageError: neither a folder nor two files.
        DataError: a file is missing or malformed, or holds no annotation or no detection.
    """
    detected = read_detected(folder, detections, annotations, images)
    analysis = find_label_errors(detected)
    files = [
        save(analysis, out_dir / FILE),
        write_page(analysis, out_dir / "labels.html", most),
        write_coco(analysis, detected, out_dir / "coco.json"),
        write_label_studio(analysis, detected, out_dir / "label_studio.json"),
    ]
    return Analysis(analysis, files)
