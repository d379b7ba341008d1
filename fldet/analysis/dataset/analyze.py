"""``fldet analyze dataset`` as a function."""

import logging
from pathlib import Path

from mmengine.config import Config

from fldet.analysis.dataset.augmented import augmented_images
from fldet.analysis.dataset.pictures import contact_sheet, cover_sheet, plot_summary
from fldet.analysis.dataset.summary import DatasetSummary, summarize_content
from fldet.config.prepare import dataset_of
from fldet.data.annotations import read_annotations
from fldet.data.image_lists import ONLY, WITHOUT
from fldet.errors import ConfigError
from fldet.results import ANALYSES, Analysis

_LAYOUT = {"annotations", "Annotations", "ImageSets", "Main"}  # folders that name no data

log = logging.getLogger("fldet")


def analyze_dataset(
    source: Config | Path,
    *,
    split: str = "train",
    images: Path | None = None,
    out_dir: Path = ANALYSES,
) -> Analysis[DatasetSummary]:
    """Counts and draws what is in a data set.

    The images of a config's training split are drawn after its augmentation, others as they are in
    the file.

    Args:
        source: config, or annotation file in COCO format.
        split: ``train``, ``val`` or ``test``; of a config.
        images: their folder, of an annotation file; without it none are drawn.
        out_dir: where to draw.

    Raises:
        DataError: files are missing or malformed, or no image can be read.
        UsageError: another split, or one that is no single data set.
    """
    if isinstance(source, Path):
        annotation_file, content = source, read_annotations(source)
        name = source.stem
    else:
        kind, dataset = dataset_of(source, split)
        annotation_file, images = kind.annotation_file(dataset), kind.image_folder(dataset)
        content = kind.read(dataset)
        is_part = bool(dataset.get(ONLY) or dataset.get(WITHOUT))  # of the file
        name = annotation_file.stem + f"_{split}" * is_part
    summary = summarize_content(content, annotation_file.name, images)
    title = _data_in_words(annotation_file)
    files = [plot_summary(summary, out_dir / f"{name}.png", title)]
    sheet = out_dir / f"{name}_images.jpg"
    is_config = not isinstance(source, Path)
    if is_config and split == "train" and _draw_augmented(source, sheet, title):
        files.append(sheet)
    elif images:
        files.append(contact_sheet(content, images, sheet, name=title))
    return Analysis(summary, files)


def _data_in_words(annotation_file: Path) -> str:
    """Returns the folder of a data set and the file that lists a split of it."""
    folders = [part for part in annotation_file.absolute().parts[1:-1] if part not in _LAYOUT]
    return ", ".join([*folders[-1:], annotation_file.name])


def _draw_augmented(cfg: Config, path: Path, title: str) -> bool:
    """Draws training images as the network sees them; False if the config has other anchors."""
    try:
        images, class_names, rule = augmented_images(cfg)
    except ConfigError as error:
        log.info("images are drawn as they are in the file: %s", error.message)
        return False
    cover_sheet(images, class_names, rule.pos_iou_thr, path, name=title)
    return True
