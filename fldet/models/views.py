"""A model that is tested on several views of each picture."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import nn

from fldet.data.slicing.make_views import ViewsOfPicture
from fldet.data.slicing.views import Views, seen_in
from fldet.ops.merge import merge_views


class ModelOfViews(nn.Module):
    """Takes the place of a model in a test whose pipeline makes views (``fldet.MakeViews``).

    Args:
        model: a detector.
        views: that the pipeline makes.
        batch_size: most views at once; only those of one shape share a batch.
        agnostic: whether boxes suppress those of other classes.
    """

    def __init__(
        self, model: nn.Module, views: Views, batch_size: int | None, *, agnostic: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.tolerance = views.tolerance
        self.batch_size = batch_size or 1
        self.agnostic = agnostic

    def test_step(self, data: dict[str, Sequence[ViewsOfPicture]]) -> list[Any]:
        """Returns the samples of pictures with their detections, in pixels of the pictures."""
        pictures = data["picture"]
        found = iter(self._found([one for picture in pictures for _, one in picture.views]))
        return [self._merged(picture, [*islice(found, len(picture.views))]) for picture in pictures]

    def _found(self, packed: Sequence[dict[str, Any]]) -> list[Any]:
        model: Any = self.model
        rows: dict[tuple[int, ...], list[int]] = {}
        for row, one in enumerate(packed):
            rows.setdefault(tuple(one["inputs"].shape), []).append(row)
        found: dict[int, Any] = {}
        for same in rows.values():
            for start in range(0, len(same), self.batch_size):
                batch = same[start : start + self.batch_size]
                keys = ("inputs", "data_samples")
                data = {key: [packed[row][key] for row in batch] for key in keys}
                samples = model.test_step(data)
                found |= {row: one.pred_instances for row, one in zip(batch, samples, strict=True)}
        return [found[row] for row in range(len(packed))]

    def _merged(self, picture: ViewsOfPicture, found: Sequence[Any]) -> Any:
        seen = []
        for (view, _), one in zip(picture.views, found, strict=True):
            boxes = getattr(one.bboxes, "tensor", one.bboxes)
            parts = (part.detach().cpu().numpy() for part in (boxes, one.scores, one.labels))
            seen.append(seen_in(view, *parts))
        merged = merge_views(seen, picture.size, self.tolerance, agnostic=self.agnostic)
        boxes, scores, labels = map(torch.from_numpy, merged)
        picture.sample.pred_instances = InstanceData(bboxes=boxes, scores=scores, labels=labels)
        return picture.sample
