"""Pictures of a test: predictions beside the ground truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.hooks import Hook

from fldet.files import write_atomically
from fldet.pictures.boxes import DrawOptions, Image, draw_boxes, read_image, side_by_side
from fldet.registry import HOOKS
from fldet.text import file_name


@HOOKS.register_module()
class DrawHook(Hook):
    """Draws each test image: predictions on the left, ground truth on the right.

    The name is that of the image with the ending ``.jpg``, cut if it is very long; where an earlier
    image of the data set has the same name, the image id goes in front. Each of several processes
    draws its own images, under the names that one process would give.

    The ground truth must be in pixels of the image file, as predictions are: in the test pipeline
    ``LoadAnnotations`` stands after ``Resize``, as in all of MMDetection's configs. Without
    ``LoadAnnotations`` the right side has no boxes.

    Args:
        out_dir: folder of the pictures; it is made.
        score_thr: lowest score of a box that is drawn, in [0, 1].
        max_pictures: stop after so many in this process; None draws all.
        hide_labels, hide_scores, line_width: see ``fldet.pictures.boxes.DrawOptions``.
    """

    priority = "LOW"

    def __init__(
        self,
        out_dir: str,
        score_thr: float = 0.3,
        max_pictures: int | None = None,
        hide_labels: bool = False,
        hide_scores: bool = False,
        line_width: int | None = None,
    ) -> None:
        self.out_dir = Path(out_dir)
        self.score_thr = score_thr
        self.max_pictures = max_pictures
        self.options = DrawOptions(hide_labels, hide_scores, line_width)
        self.pictures: list[Path] = []  # written since the test began
        self._owners: dict[str, str] = {}

    def before_test(self, runner: Any) -> None:
        """Forgets the pictures of an earlier test; finds out which image has a name first."""
        self.pictures, self._owners = [], {}
        dataset = runner.test_loop.dataloader.dataset
        for path in (dataset.get_data_info(index)["img_path"] for index in range(len(dataset))):
            self._owners.setdefault(Path(path).stem, str(path))

    def after_test_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Draws the images of a batch; one that cannot be read is a DataError."""
        names = runner.test_loop.dataloader.dataset.metainfo.get("classes") or ()
        for sample in outputs or ():
            if self.max_pictures is not None and len(self.pictures) >= self.max_pictures:
                return
            image = read_image(Path(sample.img_path))
            picture = draw_sample(image, sample, names, self.score_thr, self.options)
            data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
            self.pictures.append(write_atomically(self._path(sample), data))

    def _path(self, sample: Any) -> Path:
        stem = Path(sample.img_path).stem
        is_first = self._owners.get(stem, sample.img_path) == sample.img_path
        name = stem if is_first else f"{sample.img_id}_{stem}"
        taken = not is_first and name in self._owners
        return self.out_dir / f"{file_name(name, marked=taken)}.jpg"


def draw_sample(
    image: Image,
    sample: Any,
    names: Sequence[str],
    score_thr: float,
    options: DrawOptions | None = None,
) -> Image:
    """Returns predictions of at least ``score_thr`` beside ground truth.

    The image is (H, W, 3) uint8 BGR, as in its file; the boxes of the ``DetDataSample`` are xyxy in
    pixels of the file.
    """
    found = sample.pred_instances
    found = found[found.scores >= score_thr]
    options = options or DrawOptions()
    labels, scores = _numbers(found.labels), _numbers(found.scores)
    prediction = draw_boxes(image, _boxes(found), labels, names, scores=scores, options=options)
    boxes, labels, crowd = _ground_truth(sample)
    truth = draw_boxes(image, boxes, labels, names, crowd=crowd, options=options)
    return side_by_side(
        prediction, truth, captions=(f"prediction (score >= {score_thr:.2f})", "ground truth")
    )


def _ground_truth(sample: Any) -> tuple[Any, Any, Any]:
    """Returns boxes xyxy, labels, and whether each is a crowd region."""
    parts = [sample.get(key) for key in ("gt_instances", "ignored_instances")]
    parts = [part if part is not None and "bboxes" in part else None for part in parts]
    boxes = [np.zeros((0, 4)) if part is None else _boxes(part) for part in parts]
    labels = [np.zeros(0) if part is None else _numbers(part.labels) for part in parts]
    crowd = np.repeat([False, True], [len(one) for one in boxes])
    return np.concatenate(boxes), np.concatenate(labels), crowd


def _boxes(instances: Any) -> Any:
    """Returns (N, 4) float; MMDetection's box objects keep the tensor in an attribute."""
    return _numbers(getattr(instances.bboxes, "tensor", instances.bboxes)).reshape(-1, 4)


def _numbers(tensor: Any) -> Any:
    return tensor.detach().double().cpu().numpy()
