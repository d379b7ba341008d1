"""Functions that a compiler is to leave alone."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """Keeps a function out of compiled code, as ``torch.compiler.disable`` does.

    That one imports torch's compiler as soon as it decorates something, which takes a third of a
    second of every start; here only compiled code does.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            left_alone: Callable[P, R] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
            return left_alone(*args, **kwargs)
        return function(*args, **kwargs)

    return call
