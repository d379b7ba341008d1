"""What a training says of images that it could not read."""

import logging
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from fldet.data.image_files import read_lines
from fldet.registry import HOOKS

log = logging.getLogger("fldet")


@HOOKS.register_module()
class BrokenImagesHook(Hook):
    """Logs each broken image of a training once, and at the end how many there were.

    The processes that read images only write them to a list: they were forked with the locks of
    this process's log and progress bar, and must not use those.

    Args:
        file: the list, a line for each image.
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self._size = 0
        self._logged: dict[str, None] = {}

    def after_train_iter(self, runner: Any, batch_idx: int, **_: Any) -> None:
        """Logs what is new in the list."""
        if not is_main_process() or not self.file.exists():
            return
        size = self.file.stat().st_size
        if size == self._size:
            return
        self._size = size
        for line in read_lines(self.file):
            if line not in self._logged:
                self._logged[line] = None
                log.warning("broken image left out: %s", line)

    def after_train(self, runner: Any) -> None:
        """Logs the count, if there were any."""
        self.after_train_iter(runner, 0)
        if self._logged:
            log.warning(
                "%d broken images were left out of the training; they are listed in %s",
                *(len(self._logged), self.file),
            )
