"""Loggers of other tools, that MMEngine's visualizer writes to beside its own files.

What a run logs, its config, losses, learning rate and the figures of its validations, goes to each
of them. All stay on this machine unless their own environment variables say otherwise.
"""

import importlib.util
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from mmengine.config import Config
from mmengine.visualization.vis_backend import (
    BaseVisBackend,
    ClearMLVisBackend,
    MLflowVisBackend,
    TensorboardVisBackend,
    WandbVisBackend,
)

from fldet.errors import ConfigError, DataError, UnavailableError, nearest, shorten
from fldet.files import read_text, write_atomically

PROJECT = "fldet"  # the name of project or experiment where the config gives none
ID_FILE = "run_id"

_MOST_OF_PARAMETER = 500  # characters of a value that MLflow keeps, in all its versions
_PARAMETERS_AT_ONCE = 100


class Logger(BaseVisBackend):
    """What a logger of a run has beside MMEngine's methods.

    ``folder`` is the tool's own in the work dir, so that all starts of a run find it.
    """

    packages: ClassVar[tuple[str, ...]]  # that Python imports
    options: Mapping[str, Any]
    folder: Path
    iteration: int  # of the run, where this start goes on
    resumed: bool

    def start(self, cfg: Config, options: Mapping[str, Any], iteration: int) -> None:
        """Begins the run, or goes on with it behind an iteration; logs the config."""
        self.folder, self.options = Path(self._save_dir), options
        self.iteration, self.resumed = iteration, bool(cfg.get("resume"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.add_config(cfg)

    def _earlier_id(self) -> str | None:
        """Returns the id of the run in the tool, where it goes on and an earlier start kept it."""
        try:
            text = read_text(self.folder / ID_FILE, "id of a run", expected="", most=200)
        except DataError:
            return None
        found = re.fullmatch(r"[\w-]+", text.strip())
        return found[0] if found and self.resumed else None

    def _keep_id(self, name: str) -> None:
        write_atomically(self.folder / ID_FILE, f"{name}\n")


class TensorboardLogger(Logger, TensorboardVisBackend):
    """Event files in ``tensorboard/``; what a killed start wrote too far is passed over."""

    packages = ("tensorboard",)

    def _init_env(self) -> None:
        from torch.utils import tensorboard

        writer: Any = tensorboard.SummaryWriter
        self._tensorboard = writer(str(self.folder), purge_step=self.iteration + 1, **self.options)


class WandbLogger(Logger, WandbVisBackend):
    """A run in ``wandb/``; its starts share one id, and ``wandb sync`` joins them."""

    packages = ("wandb",)

    def _init_env(self) -> None:
        import wandb

        self._wandb = wandb
        name = self._earlier_id() or uuid4().hex[:8]
        self._keep_id(name)
        defaults = {
            "project": PROJECT,
            "name": self.folder.parent.name,
            "mode": os.environ.get("WANDB_MODE", "offline"),
            "id": name,
            "dir": str(self.folder.parent),  # in which it makes the folder wandb itself
            # neither lines of its own nor a hand on this process's output
            "settings": wandb.Settings(silent=True, console="off"),
        }
        options = {**defaults, **self.options}
        if self.resumed and options["mode"] == "online":
            options.setdefault("resume", "allow")
        self._run = wandb.init(**options)
        self._run.define_metric("iteration")
        self._run.define_metric("*", step_metric="iteration")

    def add_config(self, config: Config, **_: Any) -> None:
        """Logs the config, and no file of the current folder."""
        self.experiment.run.config.update(config.to_dict(), allow_val_change=True)

    def add_scalars(self, scalar_dict: dict[str, Any], step: int = 0, *_: Any, **__: Any) -> None:
        """Logs figures at an iteration; MMEngine would count its calls instead."""
        self._run.log({**scalar_dict, "iteration": step})

    def close(self) -> None:
        """Ends the run."""
        if hasattr(self, "_run"):
            self._run.finish()


class MLflowLogger(Logger, MLflowVisBackend):
    """A run in ``mlflow/mlflow.db``, or where ``MLFLOW_TRACKING_URI`` says."""

    # MLflow's folders of files are in maintenance mode, and refused since its version 3
    packages = ("mlflow", "sqlalchemy", "alembic")

    def _init_env(self) -> None:
        import mlflow

        self._mlflow = mlflow
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # not each table of a new database
        options = dict(self.options)
        folder = self.folder.absolute()
        uri = options.pop("tracking_uri", os.environ.get("MLFLOW_TRACKING_URI"))
        experiment = options.pop("experiment_name", PROJECT)
        mlflow.set_tracking_uri(uri or f"sqlite:///{folder / 'mlflow.db'}")
        if mlflow.get_experiment_by_name(experiment) is None:
            place = None if uri else (folder / "artifacts").as_uri()
            mlflow.create_experiment(experiment, artifact_location=place)
        mlflow.set_experiment(experiment)
        defaults = {"run_name": self.folder.parent.name, "run_id": self._earlier_id()}
        run = mlflow.start_run(**{**defaults, **options})
        self._keep_id(run.info.run_id)

    def add_config(self, config: Config, **_: Any) -> None:
        """Logs the config as a file and, at the first start, as parameters, which cannot change."""
        self.experiment.log_text(config.pretty_text, "config.py")
        if self.resumed:
            return
        values = [
            (re.sub(r"[^\w./ -]", "_", name), str(value)[:_MOST_OF_PARAMETER])
            for name, value in self._flatten(config.to_dict()).items()
        ]
        for begin in range(0, len(values), _PARAMETERS_AT_ONCE):
            self._mlflow.log_params(dict(values[begin : begin + _PARAMETERS_AT_ONCE]))

    def close(self) -> None:
        """Ends the run; MMEngine would copy the work dir, in which this run lies itself."""
        if hasattr(self, "_mlflow"):
            self._mlflow.end_run()


class ClearMLLogger(Logger, ClearMLVisBackend):
    """A task in ``clearml/``; offline each start is one of its own."""

    packages = ("clearml",)

    def _init_env(self) -> None:
        online = os.environ.get("CLEARML_OFFLINE_MODE", "1").lower() in ("0", "false", "no")
        if not online:
            os.environ["CLEARML_CACHE_DIR"] = str(self.folder.absolute())
        os.environ.setdefault("CLEARML_LOG_LEVEL", "ERROR")
        import clearml

        self._clearml = clearml
        if not online:
            clearml.Task.set_offline(True)
        self._init_kwargs = {
            "project_name": PROJECT,
            "task_name": self.folder.parent.name,
            "continue_last_task": (online and self._earlier_id()) or False,
            "reuse_last_task_id": False,
            "auto_connect_arg_parser": False,
            "auto_connect_frameworks": False,
            "auto_connect_streams": False,
            "auto_resource_monitoring": False,
            **self.options,
        }
        self._task = clearml.Task.init(**self._init_kwargs)
        self._logger = self._task.get_logger()
        self._keep_id(self._task.id)

    def add_config(self, config: Config, **_: Any) -> None:
        """Logs the config."""
        self.experiment.Task.current_task().connect_configuration(config.to_dict())

    def close(self) -> None:
        """Ends the task."""
        if hasattr(self, "_task"):
            self._task.close()


LOGGERS: dict[str, type[Logger]] = {
    "tensorboard": TensorboardLogger,
    "mlflow": MLflowLogger,
    "wandb": WandbLogger,
    "clearml": ClearMLLogger,
}


def logger_options(value: Any) -> dict[str, dict[str, Any]]:
    """Returns the options of each logger that the line ``loggers`` of a config names.

    Raises:
        ConfigError: an unknown name, or one twice.
        UnavailableError: a package is not installed.
    """
    entries = list(value) if isinstance(value, (list, tuple)) else [value]
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        options = dict(entry) if isinstance(entry, dict) else {"type": entry}
        name = options.pop("type", None)
        if not isinstance(name, str) or name not in LOGGERS or name in found:
            close = nearest(name, LOGGERS) if isinstance(name, str) else ""
            raise ConfigError(
                f"loggers is {shorten(value)}",
                expected=close
                or f"a list, each once, of {', '.join(map(repr, LOGGERS))}; or "
                "dict(type='wandb', project='cells'), with what the tool itself takes",
            )
        _require(name)
        found[name] = options
    return found


def _require(name: str) -> None:
    missing = [one for one in LOGGERS[name].packages if importlib.util.find_spec(one) is None]
    if missing:
        raise UnavailableError(
            f"loggers: {name} needs the package {missing[0]}, which is not installed",
            expected=f"the packages of the extra {name}",
            hint=f"pip install 'fldet[{name}]', or leave {name} out of loggers",
        )
