"""The lines of a config that each stand for a hook: ``ema``, ``loggers`` and others."""

import logging
import re
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook

from fldet.engine.hooks.early_end import EarlyStoppingHook, TimeBudgetHook
from fldet.engine.hooks.ema import EMAHook
from fldet.engine.hooks.loggers import LoggersHook
from fldet.engine.loggers import logger_options
from fldet.errors import ConfigError, shorten
from fldet.numeric import is_number

log = logging.getLogger("fldet")

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_TIME = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in _UNITS))
_LONGEST = 1e12  # seconds, that is 30,000 years


def hooks_of_lines(cfg: Config) -> list[Hook]:
    """Returns the hooks that the lines of a training's config stand for."""
    makers = {
        "ema": _ema,
        "early_stopping": _early_stopping,
        "max_time": _time_budget,
        "loggers": _loggers,
    }
    return [
        make(cfg)
        for name, make in makers.items()
        if cfg.get(name) is not None and cfg[name] is not False
    ]


def duration(value: Any) -> float:
    """Returns the seconds of ``'2h30m'``, ``'90m'``, ``'1d'`` or a number of seconds."""
    seconds = float(value) if is_number(value) else 0.0
    if isinstance(value, str) and (found := _TIME.fullmatch(value.replace(" ", ""))):
        parts = zip(found.groups("0"), _UNITS.values(), strict=True)
        seconds = sum(float(number) * unit for number, unit in parts)
    if not 0 < seconds <= _LONGEST:
        raise ConfigError(
            f"max_time is {shorten(value)}",
            expected="a time as '2h30m', '45m' or '1d', or a positive number of seconds",
        )
    return seconds


def _time_budget(cfg: Config) -> Hook:
    return TimeBudgetHook(duration(cfg.max_time))


def _loggers(cfg: Config) -> Hook:
    return LoggersHook(logger_options(cfg.loggers))


def _ema(cfg: Config) -> Hook:
    value: Any = cfg.ema
    options = {} if value is True else value
    example = "True, False or dict(momentum=0.0002, gamma=10)"
    if not isinstance(options, dict):
        raise ConfigError(f"ema is {shorten(value)}", expected=example)
    hook = EMAHook(**options)
    momentum, gamma = hook.ema_cfg["momentum"], hook.ema_cfg["gamma"]
    if not (is_number(momentum) and 0 < momentum < 1 and _is_count(gamma)):
        raise ConfigError(
            f"ema is {shorten(value)}", expected=f"{example}: momentum in (0, 1), gamma at least 1"
        )
    return hook


def _early_stopping(cfg: Config) -> Hook:
    value: Any = cfg.early_stopping
    example = "validations without a better score, as 5, or dict(patience=5, min_delta=0.001)"
    if not (_is_count(value) or isinstance(value, dict)):
        raise ConfigError(f"early_stopping is {shorten(value)}", expected=example)
    if not (cfg.get("val_dataloader") and cfg.get("val_cfg")):
        raise ConfigError(
            "early_stopping: the config has no validation",
            expected="val_dataloader, val_evaluator and val_cfg",
            hint="early_stopping = False, or max_time = '2h' for an end by the clock",
        )
    checkpoint = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    best, options = checkpoint.get("save_best"), dict[str, Any]()
    if isinstance(best, str) and best != "auto":
        options |= {"monitor": best, "rule": checkpoint.get("rule") or "greater"}
    options |= value if isinstance(value, dict) else {"patience": value}
    hook = EarlyStoppingHook(**options)
    good_rule = options.get("rule", "greater") in ("greater", "less")
    if not (_is_count(hook.patience) and isinstance(hook.monitor, str) and good_rule):
        raise ConfigError(
            f"early_stopping is {shorten(value)}", expected=f"{example}; rule greater, less"
        )
    if not (is_number(hook.min_delta) and hook.min_delta >= 0):
        raise ConfigError(
            f"early_stopping.min_delta is {shorten(hook.min_delta)}", expected="0 or more"
        )
    return hook


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**63
