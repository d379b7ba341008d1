"""Figures of a loss with nothing right or wrong about them: memory, and time beside fldet's."""

import statistics
import time
from functools import partial

import torch
from torch import Tensor

from fldet.losses.conformance.contract import Bound, Check, Judged
from fldet.losses.conformance.peers import judged_of

SIGMOID_SHAPE, SOFTMAX_SHAPE = (100_000, 80), (4, 21, 256, 256)
ROUNDS, WARMUP = 7, 2


def examples(judged: Judged) -> tuple[Tensor, Tensor]:
    """Returns logits as of an untrained detector, 1 % objects; or of a segmentation map."""
    generator = torch.Generator().manual_seed(0)
    if judged.is_softmax:
        n, k, *rest = SOFTMAX_SHAPE
        logits = torch.randn(SOFTMAX_SHAPE, generator=generator)
        return logits, torch.randint(k, (n, *rest), generator=generator)
    n, k = SIGMOID_SHAPE
    targets = torch.zeros(n, k)
    objects = torch.arange(0, n, 100)
    targets[objects, torch.randint(k, (len(objects),), generator=generator)] = 1
    return torch.randn(n, k, generator=generator) - 4.6, targets


def step(loss: Bound, x: Tensor, t: Tensor) -> None:
    """Runs forward and backward."""
    x.grad = None
    loss(x, t).backward()  # type: ignore[no-untyped-call]


def memory(judged: Judged) -> str:
    """Adds up what torch's allocator gives and takes in one step."""
    x, t = examples(judged)
    run = partial(step, judged.bound(reduction="mean"), x.requires_grad_(), t)
    run()
    x.grad = None
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return f"{peak / (x.numel() * x.element_size()):.1f}"


def speed(judged: Judged) -> str:
    """Takes turns with fldet's loss of the same form, one thread."""
    x, t = examples(judged)
    x.requires_grad_()
    ours = judged_of(f"fldet.losses:{judged.form}_focal_loss").bound(reduction="mean")
    steps = [partial(step, loss, x, t) for loss in (judged.bound(reduction="mean"), ours)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ratios = []
        for number in range(WARMUP + ROUNDS):
            turn = [_seconds(one) for one in (steps if number % 2 else steps[::-1])]
            mine, other = turn if number % 2 else turn[::-1]
            ratios.append(mine / other)
    finally:
        torch.set_num_threads(threads)
    return f"{statistics.median(ratios[WARMUP:]):.1f}"


def _seconds(run: partial[None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


CHECKS = (
    Check(
        "memory",
        "Peak extra memory of forward and backward, reduction mean, over that of the logits "
        "(100,000 x 80 for a sigmoid, 4 x 21 x 256 x 256 for a softmax); the gradient alone is 1.",
        memory,
        measures=True,
    ),
    Check(
        "time",
        "Time of the same on one thread of a CPU over that of fldet's, median of rounds in turns.",
        speed,
        measures=True,
    ),
)
