"""Models and runners from configs."""

import contextlib
import copy
import logging
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from fldet.checkpoints.pretrained import explained_downloads
from fldet.config.load import format_config
from fldet.config.prepare import our_datasets
from fldet.data.coco import CocoDataset, require_boxes
from fldet.data.stream import BatchStream, exact_loader
from fldet.engine.hooks import BrokenImagesHook
from fldet.engine.step_errors import explained_step_errors
from fldet.engine.workers import _begin_worker, worker_errors
from fldet.errors import CheckpointError, shorten
from fldet.evaluation.metrics import BoxMetric
from fldet.files import write_atomically
from fldet.models.fast.optimizers import leave_compiler_out
from fldet.models.fast.train_step import set_up_model
from fldet.streams import _name_log, quiet_console

# What a state of the wrong types or sizes makes optimizers, schedules and MMEngine raise.
_MALFORMED = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


# Options of a DataLoader about its processes.
WORKER_OPTIONS = {"persistent_workers", "prefetch_factor", "multiprocessing_context"}

_OF_THE_FIGURE = ("fig_save_canvas", "fig_save", "ax_save", "dpi")


class FldetRunner(Runner):
    """MMEngine's Runner, whose log goes to its file; the console gets warnings, on stderr.

    Before a loop begins, its image files must be there and its ground truth must be right; broken
    images of a training are listed in ``broken_images.txt`` beside its log.
    """

    def train(self) -> nn.Module:
        """Trains; an expected failure of a loader process is raised as it happened there."""
        with worker_errors(), explained_step_errors():
            return super().train()

    def load_or_resume(self) -> None:
        """Goes on with the run of the work dir, or loads ``load_from`` into a new one.

        MMEngine would take ``load_from`` for the run to go on with.
        """
        if self._resume:
            self._load_from = None
        try:
            super().load_or_resume()
        except _MALFORMED as error:
            raise CheckpointError(
                "the checkpoint cannot be gone on with: "
                f"{type(error).__name__}: {shorten(str(error))}",
                expected="the state of a run as fldet or MMEngine has saved it",
                hint="start anew in another folder with --work-dir",
            ) from error

    def test(self) -> dict[str, float]:
        """Tests; an expected failure of a loader process is raised as it happened there."""
        with worker_errors(), explained_step_errors():
            return super().test()

    def build_model(self, model: Any) -> nn.Module:
        """Returns the model, changed as the lines for a lean training say."""
        built = super().build_model(model)
        set_up_model(built, self.cfg)
        return built

    def build_optim_wrapper(self, optim_wrapper: Any) -> OptimWrapper:
        """Returns the optimizer, which needs torch's compiler only where something is compiled."""
        leave_compiler_out()
        return super().build_optim_wrapper(optim_wrapper)

    def build_visualizer(self, visualizer: Any = None) -> Visualizer:
        """Returns the visualizer, which needs Matplotlib only where something is drawn."""
        return super().build_visualizer(figure_later(visualizer))

    def _maybe_compile(self, target: str) -> None:
        """Does nothing: MMEngine would compile the whole step, data and losses included."""

    @staticmethod
    def build_dataloader(dataloader: Any, *args: Any, **kwargs: Any) -> DataLoader[Any]:
        """Returns the loader as MMEngine builds it; its processes outlive what stops the run.

        Without loader processes (``num_workers`` 0) what the config says about them is left out;
        torch has errors for it.
        """
        if isinstance(dataloader, dict) and not dataloader.get("num_workers"):
            dataloader = {key: dataloader[key] for key in dataloader.keys() - WORKER_OPTIONS}
        loader = Runner.build_dataloader(dataloader, *args, **kwargs)
        loader.worker_init_fn = partial(_begin_worker, loader.worker_init_fn)
        return loader

    def build_train_loop(self, loop: Any) -> BaseLoop:
        """Returns the training loop; the seed decides its samples, one file lists broken images."""
        if isinstance(loop, BaseLoop):
            return loop
        file = str(Path(self.log_dir, "broken_images.txt"))
        if isinstance(self._train_dataloader, dict):
            for _, dataset in our_datasets(self._train_dataloader):
                dataset["broken_images_file"] = file
        self.register_hook(BrokenImagesHook(file))
        loop = _checked(super().build_train_loop(loop), training=True)
        if isinstance(loop, IterBasedTrainLoop):
            loop.dataloader = exact_loader(loop.dataloader, self.seed, self.rank)
            device = next(self.model.parameters()).device
            loop.dataloader_iterator = BatchStream(loop.dataloader, device)
        return loop

    def build_val_loop(self, loop: Any) -> BaseLoop:
        """Returns the validation loop."""
        return loop if isinstance(loop, BaseLoop) else _checked(super().build_val_loop(loop))

    def build_test_loop(self, loop: Any) -> BaseLoop:
        """Returns the test loop."""
        return loop if isinstance(loop, BaseLoop) else _checked(super().build_test_loop(loop))

    @property
    def config_file(self) -> Path:
        """Where the config is kept in the work dir."""
        return Path(self.work_dir, Path(self.cfg.filename or f"{self.timestamp}.py").name)

    @master_only
    def dump_config(self) -> None:
        """Keeps the config: as the run goes on from it, the file is whole or as it was before."""
        if self.config_file.suffix == ".py":
            write_atomically(self.config_file, self.cfg.pretty_text)
        else:
            super().dump_config()

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Returns the logger of the run with a quieter console."""
        logger = super().build_logger(*args, **kwargs)
        quiet_console(logger)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                stream: Any = handler.stream
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")
                handler.handleError = _name_log(handler.baseFilename)  # type: ignore
        return logger

    def close(self) -> None:
        """Ends the loader processes and closes the log; else they stay until memory is tidied."""
        for loop in (self._train_loop, self._val_loop, self._test_loop):
            if isinstance(loop, BaseLoop):
                loop.dataloader._iterator = None
                stream = getattr(loop, "dataloader_iterator", None)
                if isinstance(stream, BatchStream):
                    stream.close()
        for handler in [*self.logger.handlers]:
            if isinstance(handler, logging.FileHandler):
                self.logger.removeHandler(handler)
                with contextlib.suppress(OSError):  # a full disk, which has been said
                    handler.close()

    def _init_model_weights(self) -> None:
        if self._resume:  # all weights come from the checkpoint; pretrained ones may be gone
            return
        with explained_downloads(self.cfg):
            super()._init_model_weights()


def build_runner(cfg: Config) -> FldetRunner:
    """Returns a runner of a resolved config; its work dir is made and the config written there."""
    quiet_console(MMLogger.get_instance("mmengine"))
    with contextlib.redirect_stdout(sys.stderr):
        return FldetRunner.from_cfg(_literal(cfg))


class _LiteralConfig(Config):
    """A config whose text, in the work dir, the log and checkpoints, is ``format_config``'s."""

    @property
    def pretty_text(self) -> str:
        """The config as Python."""
        return format_config(self)


def _literal(cfg: Config) -> Config:
    literal = copy.copy(cfg)
    object.__setattr__(literal, "__class__", _LiteralConfig)  # Config's own would make it a key
    return literal


def _checked(loop: BaseLoop, *, training: bool = False) -> BaseLoop:
    """Returns a loop whose image files, boxes to learn from and ground truth have been checked."""
    evaluator = getattr(loop, "evaluator", None)
    for metric in evaluator.metrics if evaluator else ():
        if isinstance(metric, BoxMetric):
            metric.check()
    datasets = [*datasets_in(loop.dataloader.dataset)]
    ours = [dataset for dataset in datasets if isinstance(dataset, CocoDataset)]
    if training and len(ours) == len(datasets):
        require_boxes(ours)
    for dataset in ours:
        dataset.check_files()
    return loop


def datasets_in(dataset: Any) -> Iterator[Any]:
    """Yields a data set, or those inside a wrapper."""
    if hasattr(dataset, "datasets"):
        for one in dataset.datasets:
            yield from datasets_in(one)
    elif hasattr(dataset, "dataset"):
        yield from datasets_in(dataset.dataset)
    else:
        yield dataset


class _FigureLater(DetLocalVisualizer):
    """MMDetection's visualizer; its figure is made when something is drawn.

    A training only passes numbers on to the backends, and Matplotlib takes most of a second.
    """

    def __init__(self, name: str = "visualizer", image: Any = None, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        for part in _OF_THE_FIGURE:
            delattr(self, part)
        if image is not None:
            self.set_image(image)

    def _initialize_fig(self, fig_cfg: Any) -> tuple[Any, Any, Any]:
        del fig_cfg
        return None, SimpleNamespace(get_dpi=lambda: None), None

    def __getattr__(self, name: str) -> Any:
        if name not in _OF_THE_FIGURE:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        figure = super()._initialize_fig(self.fig_save_cfg)
        self.fig_save_canvas, self.fig_save, self.ax_save = figure
        self.dpi = self.fig_save.get_dpi()
        return vars(self)[name]


def figure_later(visualizer: Any) -> Any:
    """Returns the config of a visualizer; MMDetection's own gets its figure later."""
    if isinstance(visualizer, dict) and visualizer.get("type") in (
        *("DetLocalVisualizer", "mmdet.DetLocalVisualizer"),
    ):
        return {**visualizer, "type": _FigureLater}
    return visualizer
