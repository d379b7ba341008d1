"""Optimizers of torch without torch's compiler, as long as nothing is compiled.

Their methods import it to keep out of compiled code. That takes three seconds of a processor, and
where it has not been imported there is no compiled code to keep out of.
"""

import functools
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any

import torch
from torch.optim import Optimizer


def leave_compiler_out() -> None:
    """Has the methods of torch's optimizers do their work alone until something is compiled.

    They then do what they did before. Other classes, and methods that have been called with the
    compiler already, are left alone; so is everything where torch is built in another way.
    """
    if "torch._dynamo" in sys.modules:
        return
    kept_out = _code_of_decorator(torch, "_disable_dynamo")
    without_gradient = _code_of_decorator(
        sys.modules[Optimizer.__module__], "_use_grad_for_differentiable"
    )
    for kind in (Optimizer, *Optimizer.__subclasses__()):
        for name, method in list(vars(kind).items()):
            code = getattr(method, "__code__", None)
            if code is None or kind.__module__.split(".")[0] != "torch":
                continue
            if code is kept_out:
                setattr(kind, name, _alone(method, method.__wrapped__))
            elif code is without_gradient:
                setattr(kind, name, _alone(method, _step(method.__wrapped__)))


def _code_of_decorator(module: Any, name: str) -> CodeType | None:
    """Returns the code of the functions that a decorator makes, or None if there is none."""
    decorate = getattr(module, name, None)
    decorated = decorate(lambda: None) if decorate else None
    code: CodeType | None = getattr(decorated, "__code__", None)
    return code if hasattr(decorated, "__wrapped__") else None


def _alone(method: Callable[..., Any], work: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (method if "torch._dynamo" in sys.modules else work)(*args, **kwargs)

    return call


def _step(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a step as torch decorates it, without the breaks of a graph."""

    def call(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(optimizer.defaults["differentiable"]):
            return step(optimizer, *args, **kwargs)

    return call
