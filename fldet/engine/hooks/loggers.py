"""The loggers of other tools that the line ``loggers`` of a config names."""

import io
import logging
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from fldet.engine.loggers import LOGGERS, Logger
from fldet.errors import UnavailableError, shorten

log = logging.getLogger("fldet")


class LoggersHook(Hook):
    """Hands what a training logs to other tools as well, in the first process.

    MMEngine's ``LoggerHook`` closes them at the end of the run.

    Args:
        options: for each name of ``LOGGERS``, as ``logger_options`` returns them.
    """

    def __init__(self, options: Mapping[str, Mapping[str, Any]]) -> None:
        self.options = options

    def before_train(self, runner: Any) -> None:
        """Begins the runs of the tools, behind the iteration where this one goes on."""
        if not is_main_process():
            return
        for name, options in self.options.items():
            logger = LOGGERS[name](str(Path(runner.work_dir, name)))
            try:
                with redirect_stdout(io.StringIO()):  # which has this command's result alone
                    logger.start(runner.cfg, options, runner.iter)
            except Exception as error:  # of a kind of its own in each tool
                raise UnavailableError(
                    f"loggers: {name} cannot begin: {_words(error)}",
                    hint=f"leave {name} out of loggers, or see what it needs in docs/loggers.md",
                ) from error
            # the public way to a visualizer's backends is its config, which stays as it was
            runner.visualizer._vis_backends[name] = _Harmless(name, logger)


class _Harmless:
    """A logger whose failure is a warning: a network that is gone must not end a training."""

    def __init__(self, name: str, logger: Logger) -> None:
        self._name, self._logger = name, logger
        self._failed = False

    def __getattr__(self, method: str) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:
            if self._failed:
                return
            try:
                with redirect_stdout(io.StringIO()):
                    getattr(self._logger, method)(*args, **kwargs)
            except Exception as error:
                self._failed = True
                text = "%s has failed and gets nothing more: %s"
                log.warning(text, self._name, _words(error))

        return call


def _words(error: Exception) -> str:
    return shorten(f"{type(error).__name__}: {error}", 300)
