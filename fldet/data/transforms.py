"""Steps of a pipeline: MMDetection's, changed a little, and YOLOv2's augmentation."""

from collections.abc import Sequence
from typing import Any

import cv2
import mmcv
import numpy as np
import numpy.typing as npt
import torch
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import PackDetInputs as MMDetPackDetInputs
from mmdet.datasets.transforms import PhotoMetricDistortion as MMDetPhotoMetricDistortion
from mmdet.datasets.transforms import RandomCrop as MMDetRandomCrop
from mmdet.datasets.transforms import RandomFlip as MMDetRandomFlip
from mmdet.datasets.transforms import Resize as MMDetResize
from mmdet.structures.bbox import autocast_box_type

from fldet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomFlip(MMDetRandomFlip):
    """Flips as MMDetection does, but writes the image into the memory it had.

    MMDetection leaves a view that runs backwards, which packing has to copy byte by byte. The
    array of the step before is overwritten: a step that keeps its image must hand on a copy.

    Args:
        **kwargs: of MMDetection's ``RandomFlip``: ``prob``, ``direction``.
    """

    def _flip(self, results: dict[str, Any]) -> None:
        image = np.ascontiguousarray(results["img"])
        super()._flip(results)
        mmcv.imflip_(image, results["flip_direction"])
        results["img"] = image


@TRANSFORMS.register_module()
class PackDetInputs(MMDetPackDetInputs):
    """Packs an image and its truth as MMDetection does, but leaves the image in its memory.

    ``inputs`` is (C, H, W) with equal values and with the strides of channels_last; MMDetection
    copies it into planes.

    Args:
        meta_keys: what goes into the meta data of the sample.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Returns ``inputs`` and ``data_samples``."""
        packed: dict[str, Any] = super().transform({k: results[k] for k in results if k != "img"})
        if "img" in results:
            image = results["img"]
            image = image[..., None] if image.ndim == 2 else image
            packed["inputs"] = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        return packed


@TRANSFORMS.register_module()
class Resize(MMDetResize):
    """Resizes as MMDetection does, but leaves a pixel of an image that would have none.

    What ``LoadImage`` has decoded in part gets the size that the whole picture would get.

    Args:
        **kwargs: of MMDetection's ``Resize``: ``scale``, ``keep_ratio``.
    """

    def _resize_img(self, results: dict[str, Any]) -> None:
        height, width = results.pop("whole_shape", results["img"].shape[:2])
        size = results["scale"]
        if self.keep_ratio:
            size = mmcv.rescale_size((width, height), results["scale"])
        results["img"] = mmcv.imresize(
            *(results["img"], tuple(max(1, side) for side in size)),
            interpolation=self.interpolation,
            backend=self.backend,
        )
        after = results["img"].shape[:2]
        results.update(img_shape=after, scale_factor=(after[1] / width, after[0] / height))
        results["keep_ratio"] = self.keep_ratio


@TRANSFORMS.register_module()
class RandomCrop(MMDetRandomCrop):
    """Crops an image that is larger than a scale back to it, around one of its boxes.

    As MMDetection does, but the crop lies as the image does, its longer side along the longer one,
    and has the centre of one of the boxes in it, drawn at random: much of a small data set would
    else be images without objects. Crowds do not count; an image without boxes is cropped anywhere.

    Args:
        scale: longer and shorter side in pixels, in any order.
    """

    def __init__(self, scale: Sequence[int]) -> None:
        super().__init__(crop_size=(max(scale), min(scale)), allow_negative_crop=True)
        self._corner = (0, 0)  # (y, x) of the crop that is made

    def size_after(self, size: Sequence[int]) -> tuple[int, int]:
        """Returns the (width, height) of what is left of an image of a (width, height)."""
        sides = self.crop_size if size[0] >= size[1] else self.crop_size[::-1]
        return min(size[0], sides[0]), min(size[1], sides[1])

    def draw_corner(self, size: Sequence[int], boxes: npt.NDArray[np.float32]) -> tuple[int, int]:
        """Returns where a random crop of an image of a (width, height) begins: x and y.

        Args:
            size: of the image, in pixels.
            boxes: (N, 4) xyxy in its pixels; may be empty.
        """
        left = self.size_after(size)
        first, last = np.zeros(2), np.subtract(size, left)
        if len(boxes):
            x1, y1, x2, y2 = boxes[np.random.randint(len(boxes))]
            centre = np.array([x1 + x2, y1 + y2]) / 2
            first = np.clip(np.ceil(centre - left), 0, last)
            last = np.clip(np.floor(centre), first, last)
        x, y = np.random.randint(first.astype(int), last.astype(int) + 1).tolist()
        return x, y

    @autocast_box_type()
    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Returns ``results`` with the crop as its image, and what of the boxes is in it."""
        size = results["img"].shape[1::-1]
        left = self.size_after(size)
        if left == size:
            return results
        x, y = self.draw_corner(size, _objects(results))
        self._corner = y, x
        cropped: dict[str, Any] = self._crop_data(results, left[::-1], True)
        return cropped

    def _rand_offset(self, margin: tuple[int, int]) -> tuple[int, int]:
        del margin
        return self._corner


def _objects(results: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Returns the boxes that are no crowds, (N, 4) xyxy."""
    if "gt_bboxes" not in results:
        return np.zeros((0, 4), np.float32)
    boxes: npt.NDArray[np.float32] = results["gt_bboxes"].tensor.numpy()
    crowds = results.get("gt_ignore_flags")
    return boxes if crowds is None else boxes[~crowds]


@TRANSFORMS.register_module()
class PhotoMetricDistortion(MMDetPhotoMetricDistortion):
    """Distorts colours as MMDetection does, and rounds them to uint8 again, from 0 to 255.

    MMDetection hands on float32 that leaves this range, of four times the size.

    Args:
        **kwargs: of MMDetection's ``PhotoMetricDistortion``: ``brightness_delta``,
            ``contrast_range``, ``saturation_range``, ``hue_delta``, ``swap_channels``.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Returns ``results`` with other colours in its image, (H, W, 3) uint8 in BGR order."""
        results = super().transform(results)
        pixels = np.rint(results["img"])
        np.clip(pixels, 0, 255, out=pixels)
        results["img"] = np.ascontiguousarray(pixels.astype(np.uint8))
        return results


@TRANSFORMS.register_module()
class PlaceOnGrey(MMDetResize):
    """Resizes an image to fit into a grey canvas, stretched at random, and places it there.

    As ``load_data_detection`` in darknet's data.c: width and height each grow or shrink by up to
    ``jitter`` of themselves, which decides on the ratio of the two; the image is as large as the
    canvas lets it be, at a random place. Boxes go with it, in a random order, for a head that looks
    at the first ones only.

    Args:
        scale: (width, height) of the canvas in pixels.
        jitter: share in [0, 1); 0 keeps the ratio.
        grey: value of the pixels around the image.

    Raises:
        ValueError: ``jitter`` is out of range.
    """

    def __init__(self, scale: Sequence[int], *, jitter: float = 0.3, grey: int = 127) -> None:
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter must be in [0, 1), got {jitter}")
        super().__init__(scale=tuple(scale), keep_ratio=False)
        self.jitter, self.grey = jitter, grey

    @autocast_box_type()
    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Returns ``results`` with the canvas as its image, and boxes in pixels of the canvas."""
        image = results["img"]
        height, width = image.shape[:2]
        ratio = width * self._stretch() / (height * self._stretch())
        size = _largest_within(self.scale, ratio)
        x, y = (int(np.random.uniform(0, c - s)) for c, s in zip(self.scale, size, strict=True))
        canvas = np.full((*self.scale[::-1], *image.shape[2:]), self.grey, image.dtype)
        canvas[y : y + size[1], x : x + size[0]] = mmcv.imresize(image, size)
        factors = size[0] / width, size[1] / height
        results.update(img=canvas, img_shape=canvas.shape[:2], scale_factor=factors)
        results.update(scale=self.scale, keep_ratio=False)
        if "gt_bboxes" in results:
            results["gt_bboxes"].rescale_(factors)
            results["gt_bboxes"].translate_((x, y))
            self._shuffle(results)
        return results

    def _stretch(self) -> float:
        return float(np.random.uniform(1 - self.jitter, 1 + self.jitter))

    @staticmethod
    def _shuffle(results: dict[str, Any]) -> None:
        order = np.random.permutation(len(results["gt_bboxes"]))
        for name in ("gt_bboxes", "gt_bboxes_labels", "gt_ignore_flags"):
            if name in results:
                results[name] = results[name][order]


def _largest_within(canvas: Sequence[int], ratio: float) -> tuple[int, int]:
    """Returns the largest (width, height) of a ratio that fits into a canvas."""
    width, height = canvas
    if ratio * height <= width:
        width = max(1, round(ratio * height))
    else:
        height = max(1, round(width / ratio))
    return width, height


@TRANSFORMS.register_module()
class DistortHSV(BaseTransform):
    """Turns the hue and multiplies saturation and brightness by random factors.

    As ``random_distort_image`` in darknet's image.c; the paper (arXiv 1612.08242, Sec. 3) only
    names "hue, saturation, and exposure shifts".

    Args:
        hue: the hue turns by at most this share of the circle, either way.
        saturation: largest factor; as often one over it.
        exposure: the same of the brightness.

    Raises:
        ValueError: ``hue`` is negative, or a factor is below 1.
    """

    def __init__(self, *, hue: float = 0.1, saturation: float = 1.5, exposure: float = 1.5) -> None:
        if hue < 0 or min(saturation, exposure) < 1:
            raise ValueError(
                "hue must be at least 0, saturation and exposure at least 1, got "
                f"{hue}, {saturation}, {exposure}"
            )
        self.hue, self.saturation, self.exposure = hue, saturation, exposure

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Returns ``results`` with other colours in its image, (H, W, 3) uint8 in BGR order."""
        turn = float(np.random.uniform(-self.hue, self.hue))
        factors = _factor(self.saturation), _factor(self.exposure)
        results["img"] = distort_hsv(results["img"], turn, *factors)
        return results


def distort_hsv(
    image: npt.NDArray[np.uint8], turn: float, saturation: float, exposure: float
) -> npt.NDArray[np.uint8]:
    """Returns a BGR image with its hue turned, a share of the circle, and the others multiplied.

    What leaves the range of colours is cut off at the end, and not before, as in darknet.
    """
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_BGR2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * turn) % 360
    hsv *= np.array([1, saturation, exposure], np.float32)
    pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR).clip(0, 1)
    return np.rint(255 * pixels).astype(np.uint8)


def _factor(most: float) -> float:
    factor = float(np.random.uniform(1, most))
    return factor if np.random.randint(2) else 1 / factor
