"""Images of rare classes more often than others."""

import logging
import math
from collections import Counter
from typing import Any

from mmengine.dataset import ClassBalancedDataset as MMEngineClassBalancedDataset

from fldet.registry import DATASETS

log = logging.getLogger("fldet")


@DATASETS.register_module()
class ClassBalancedDataset(MMEngineClassBalancedDataset):
    """A data set that lists images of rare classes several times (arXiv 1908.03195, Sec. 3).

    As MMEngine's of this name: a class that the share f of all images shows has the factor
    max(1, sqrt(t / f)), and an image is listed as often as the largest factor of its classes says,
    rounded up; one without objects once. The images of a class under the threshold t are thus
    listed twice at least. Regions to be ignored (crowds, VOC's difficult objects) do not count, and
    the data set may be a wrapper too, as ``RepeatDataset`` or ``ConcatDataset``.

    Args:
        dataset: config of the data set, or the data set.
        oversample_thr: t, a share of the images.
        lazy_init: read the annotations later, by ``full_init``.
    """

    def _get_repeat_factors(self, dataset: Any, repeat_thr: float) -> list[float]:
        shown = [_labels(dataset.get_data_info(index)) for index in range(len(dataset))]
        counts = Counter(label for labels in shown for label in labels)
        least = min(counts.values(), default=0)
        if least >= repeat_thr * len(shown):
            log.warning(
                "oversample %g lists no image twice: the rarest class is in %d of %d images",
                *(repeat_thr, least, len(shown)),
            )
        factor = {
            label: max(1.0, math.sqrt(repeat_thr * len(shown) / count))
            for label, count in counts.items()
        }
        return [max((factor[label] for label in labels), default=1.0) for labels in shown]


def _labels(info: dict[str, Any]) -> set[int]:
    boxes = info["instances"]
    return {box["bbox_label"] for box in boxes if not box.get("ignore_flag", 0)}
