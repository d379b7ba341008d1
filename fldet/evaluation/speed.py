"""Time per image of a detector."""

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def time_per_image(
    model: nn.Module, batches: Iterable[dict[str, Any]], *, warmup: int = 3
) -> NDArray[np.float64]:
    """Returns the milliseconds of each image, from the loaded pixels to the final boxes.

    Counted: normalisation, network, decoding and NMS (``test_step``), and on a GPU the copy to it
    and the wait for the results. Not counted: reading, decoding and resizing the file.

    Args:
        model: in evaluation mode, on its device.
        batches: of one image each, as a test loader gives them.
        warmup: first images, run but not counted.

    Raises:
        ValueError: no image is left after the warm-up.
    """
    times = []
    with torch.inference_mode():
        for index, batch in enumerate(batches):
            _wait()
            start = time.perf_counter()
            model.test_step(batch)  # type: ignore[operator]
            _wait()
            if index >= warmup:
                times.append(1000 * (time.perf_counter() - start))
    if not times:
        raise ValueError(f"no image left to time after {warmup} for warming up")
    return np.array(times, dtype=np.float64)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
