"""Predictions as data sets of other tools, made of the lines that every run writes.

Each writer is a function of the lines, the folder and the names of the classes; it returns the
paths that it made. What an earlier run made of fewer lines is replaced.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from fldet.inference.writers.coco_dataset import write_coco_dataset
from fldet.inference.writers.label_studio import write_label_studio
from fldet.inference.writers.table import write_csv
from fldet.inference.writers.voc import write_voc
from fldet.inference.writers.yolo import write_yolo

Writer = Callable[[Sequence[Path], Path, Sequence[str]], tuple[Path, ...]]

WRITERS: dict[str, Writer] = {
    "coco-dataset": write_coco_dataset,
    "yolo": write_yolo,
    "voc": write_voc,
    "label-studio": write_label_studio,
    "csv": write_csv,
}
