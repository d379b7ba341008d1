"""Times the losses of fldet.losses, forward and backward, against those that others import.

Usage: python tools/benchmarks/losses.py [--threads 1] [--rounds 3] [--processes 3] [--no-compiled]
       [--kinds NAME ...] [--sizes NAME ...] [--heap NAME] [--json]

Peers: torchvision, kornia, MONAI, segmentation_models_pytorch (smp), and torch's cross entropy; one
that is not installed is named and left out, and all can be installed with ``--no-deps``.

Each contestant, eager or compiled, is alone in a process. All processes of a case run one step per
round, one after the other in rotating order; ratios are taken within a round, and the figure is the
median over all rounds of several sets of processes, with the least and the largest median of a set.
The time is that of the processor with one thread, so that a busy machine counts little, else that
of the clock on the wall.
Tensors of 32 MB lie just at the size from which glibc asks the system for fresh pages at each call,
and what a process did before decides: that moves a loss that allocates by a factor of three.
``--heap kept`` keeps all freed memory, which is best for whoever allocates most, ``given-back``
gives it back at once, worst for all; ``default`` is what a user's process does. Memory is the peak
of the resident set beyond the inputs, in another process alone that gives back, with one thread.
"""

import argparse
import importlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import chain
from types import ModuleType
from typing import IO, Any

import torch
import torch.nn.functional as F
from timing import Line, machine, peak_extra_mib, table
from torch import Tensor

from fldet.losses import sigmoid_focal_loss, softmax_focal_loss

Loss = Callable[[Tensor, Tensor], Tensor]
SIZES = {"rows": (100_000, 80), "map": (4, 21, 512, 512)}
ALPHA, GAMMA, NUM_POSITIVES, SMOOTHING = 0.25, 2.0, 60, 0.1
SMP = "segmentation_models_pytorch"
ALL_SIGMOIDS = ("torchvision", "kornia", "monai", SMP)
# What is compared, and with whom. Peers that take no labels get them as a dense target ready made.
KINDS = {
    "dense": ALL_SIGMOIDS,  # a target for each logit, few of them positive
    "half": ("torchvision", "kornia"),  # the same, half of them positive
    "labels": ALL_SIGMOIDS,
    "soft": ALL_SIGMOIDS,  # labels smoothed
    "none": ("torchvision", "kornia"),  # dense, not reduced; the caller sums
    "softmax": ("kornia", "monai", "torch"),
}
# Those that compute the same number, but for the mean being over classes too.
SAME = {(kind, peer) for kind in KINDS for peer in ("torchvision", "kornia", "monai")}
SAME -= {("soft", "torchvision"), ("soft", "monai")}
GOALS = {"torchvision": 3.0, "kornia": 2.0, "monai": 2.0}
MEMORY_GOAL = 1.5
HEAPS = {
    "default": {},
    "kept": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)},
    "given-back": {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 20)},
}


@dataclass(frozen=True)
class Contestant:
    """A loss in a case, as its process is told it.

    Attributes:
        peer: whose loss it is; ``fldet`` for ours.
        kind: one of ``KINDS``.
        size: one of ``SIZES``.
        compiled: by ``torch.compile``.
        threads: of an operator.
    """

    peer: str
    kind: str
    size: str
    compiled: bool
    threads: int

    @property
    def name(self) -> str:
        """The peer, and how it runs."""
        return f"{self.peer}, {'compiled' if self.compiled else 'eager'}"


def main() -> None:
    """Prints one row for each case and contestant; or is one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of an operator (default 1)")
    parser.add_argument("--rounds", type=int, default=3, help="of a set of processes (default 3)")
    parser.add_argument("--processes", type=int, default=3, help="sets of processes (default 3)")
    parser.add_argument(
        "--compiled",
        action=argparse.BooleanOptionalAction,
        default=shutil.which("g++") is not None,
        help="all by torch.compile, too (default where there is g++)",
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="only these")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="only these")
    parser.add_argument(
        "--heap", choices=HEAPS, default="default", help="what the C library does with freed memory"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        serve(Contestant(**json.loads(args.contestant)))
        return
    torch.set_num_threads(args.threads)
    heap = args.heap
    absent = sorted(peer for peer in {p for k in args.kinds for p in KINDS[k]} if not found(peer))
    results, failed = [], {}
    for size in args.sizes:
        for kind in args.kinds:
            print(f"{size}, {kind}", file=sys.stderr, flush=True)
            field = [
                Contestant(peer, kind, size, compiled, args.threads)
                for compiled in ([False, True] if args.compiled else [False])
                for peer in ("fldet", *KINDS[kind])
                if peer not in absent
            ]
            rows, broken = case(field, args.processes, args.rounds, HEAPS[heap])
            results += rows
            failed |= {f"{size}, {kind}, {name}": why for name, why in broken.items()}
    report = {
        "schema": 1,
        "machine": {**machine(), "libc": " ".join(platform.libc_ver())},
        "peers": {p: version_of(p) for p in (*ALL_SIGMOIDS, "torch") if p not in absent},
        "absent": absent,
        "failed": failed,
        "heap": heap,
        "rounds": args.rounds,
        "processes": args.processes,
        "results": results,
    }
    report["lines"] = [asdict(line) for line in lines(report)]
    print(json.dumps(report) if args.json else as_text(report))


def lines(report: dict[str, Any]) -> list[Line]:
    """Returns how many times as fast ours is as each peer run the same way, and its memory."""
    found_lines = []
    for r in report["results"]:
        way = "compiled" if r["compiled"] else "eager"
        what = f"{r['kind']} {r['size']}, {way}, freed memory {report['heap']}"
        name = "softmax_focal_loss" if r["kind"] == "softmax" else "sigmoid_focal_loss"
        if r["peer"] == "fldet":
            goal = None if r["kind"] == "none" else MEMORY_GOAL
            against, memory = "the logits", r["memory"]
            found_lines.append(Line(f"{name}, {what}, memory", against, memory, goal, "x", True))
        else:
            wanted = (r["kind"] == "softmax") != (r["peer"] == "torchvision")
            goal = GOALS.get(r["peer"]) if wanted and r["kind"] != "none" else None
            found_lines.append(Line(f"{name}, {what}", r["peer"], r["ratio"], goal))
    return found_lines


def case(
    field: list[Contestant], processes: int, rounds: int, heap: dict[str, str]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Returns a row for each contestant of a case, and why others failed."""
    times: dict[Contestant, list[list[float]]] = {one: [] for one in field}
    apart: dict[Contestant, float] = {}
    failed: dict[str, str] = {}
    alone = [replace(one, threads=1) for one in field]
    with ready(alone, HEAPS["given-back"]) as (workers, _):
        memory = {one.name: asked(worker, "memory") for one, worker in workers.items()}
    for number in range(processes):
        alive = [one for one in field if one.name not in failed]
        with ready(alive, heap) as (workers, values):
            failed |= {one.name: "its process ended" for one in alive if one not in workers}
            apart |= differences(values)
            order = list(workers)
            took: dict[Contestant, list[float]] = {one: [] for one in order}
            for index in range(rounds):
                shift = (number + index) % len(order)
                for one in order[shift:] + order[:shift]:
                    took[one].append(asked(workers[one], "time"))
            for one in order:
                times[one].append(took[one])
    rows = []
    for one in (one for one in field if one.name not in failed):
        ratios = times_as_long(times, one, than_compiled=one.compiled)
        medians = [statistics.median(of_set) for of_set in ratios]
        of_eager = chain.from_iterable(times_as_long(times, one, than_compiled=False))
        rows.append(
            {
                **{k: v for k, v in asdict(one).items() if k != "threads"},
                "median_ms": statistics.median(chain.from_iterable(times[one])),
                "ratio": statistics.median(chain.from_iterable(ratios)),
                "least_ratio": min(medians),
                "most_ratio": max(medians),
                "ratio_to_eager": statistics.median(of_eager),
                "memory": memory[one.name],
                "difference": apart[one],
            }
        )
    return rows, failed


def times_as_long(
    times: dict[Contestant, list[list[float]]], one: Contestant, *, than_compiled: bool
) -> list[list[float]]:
    """Returns for each set the ratios, by round, of a contestant's time to ours, run some way."""
    ours = times[replace(one, peer="fldet", compiled=than_compiled)]
    return [
        [theirs / own for theirs, own in zip(*of_set, strict=True)]
        for of_set in zip(times[one], ours, strict=True)
    ]


def differences(values: dict[Contestant, float]) -> dict[Contestant, float]:
    """Returns how far each loss that should equal ours is from it, relative; NaN for the others."""
    ours = next(value for one, value in values.items() if one.peer == "fldet")
    result = {}
    for one, value in values.items():
        scale = SIZES[one.size][1] if one.kind == "softmax" and one.peer != "fldet" else 1
        same = one.peer == "fldet" or (one.kind, one.peer) in SAME
        result[one] = abs(value * scale / ours - 1) if same else float("nan")
    return result


# --- a process for each contestant ---

Worker = subprocess.Popen[str]


@contextmanager
def ready(
    field: list[Contestant], heap: dict[str, str]
) -> Iterator[tuple[dict[Contestant, Worker], dict[Contestant, float]]]:
    """Yields the processes, warm, and the loss of each; those that fail are left out."""
    workers = {}
    for one in field:
        command = [sys.executable, __file__, "--contestant", json.dumps(asdict(one))]
        workers[one] = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **heap},
        )
    try:
        answers = {one: _stream(worker.stdout).readline() for one, worker in workers.items()}
        values = {one: float(answer) for one, answer in answers.items() if answer}
        yield {one: workers[one] for one in values}, values
    finally:
        for worker in workers.values():
            worker.communicate()


def asked(worker: Worker, question: str) -> float:
    """Returns the number that a process answers a question with."""
    stdin = _stream(worker.stdin)
    stdin.write(question + "\n")
    stdin.flush()
    return float(_stream(worker.stdout).readline())


def _stream(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise RuntimeError("a process without pipes")
    return pipe


def serve(one: Contestant) -> None:
    """Prints the loss, and then an answer to each line: milliseconds, or peak over the logits."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(one.threads)
    loss = loss_of(one.peer, one.kind)
    if one.compiled:
        loss = torch.compile(loss, dynamic=False)
    if one.kind == "none":
        loss = partial(_summed, loss)
    clock = time.process_time if one.threads == 1 else time.perf_counter
    logits, targets = inputs(one, SIZES[one.size])
    own_step = partial(step, loss, logits, targets)
    own_step()  # what a first call loads or compiles is neither time nor memory of a step
    print(own_step(), file=answers, flush=True)
    for question in sys.stdin:
        if question.strip() == "memory":
            answer = peak_extra_mib(own_step) * 2**20 / (logits.numel() * logits.element_size())
        else:
            start = clock()
            own_step()
            answer = 1000 * (clock() - start)
        print(answer, file=answers, flush=True)


def _summed(loss: Loss, logits: Tensor, targets: Tensor) -> Tensor:
    return loss(logits, targets).sum()


def step(loss: Loss, logits: Tensor, targets: Tensor) -> float:
    """Returns the loss after a backward pass."""
    x = logits.detach().requires_grad_()
    value = loss(x, targets)
    value.backward()
    return float(value.detach())


def inputs(one: Contestant, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Returns logits and what a contestant takes for a target.

    Few rows are objects to a sigmoid; in a map, and to a softmax, each example is one.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator) * 1.5 - 2
    num_classes, examples = shape[1], (shape[0], *shape[2:])
    labels = torch.randint(0, num_classes, examples, generator=generator)
    if one.size == "rows" and one.kind != "softmax":
        labels[torch.randperm(shape[0], generator=generator)[NUM_POSITIVES:]] = num_classes
    if one.kind == "softmax" or (one.kind == "labels" and one.peer in ("fldet", SMP)):
        return logits, labels
    if one.kind == "half":
        return logits, torch.randint(0, 2, shape, generator=generator).float()
    classes = torch.arange(num_classes).view(-1, *[1] * (len(shape) - 2))
    dense = (labels.unsqueeze(1) == classes).float()
    if one.kind == "soft":
        dense = dense * (1 - SMOOTHING) + SMOOTHING / num_classes
    return logits, dense


# --- whose loss ---


def loss_of(peer: str, kind: str) -> Loss:
    """Returns the loss of a peer, or ours, as a function of logits and targets."""
    reduction = "none" if kind == "none" else "mean"
    softmax = kind == "softmax"
    if peer == "fldet":
        if softmax:
            return partial(softmax_focal_loss, gamma=GAMMA)
        return partial(sigmoid_focal_loss, alpha=ALPHA, gamma=GAMMA, reduction=reduction)
    if peer == "torchvision":
        function = torchvision_ops().sigmoid_focal_loss
        return partial(function, alpha=ALPHA, gamma=GAMMA, reduction=reduction)
    if peer == "kornia":
        losses = importlib.import_module("kornia.losses")
        if softmax:
            return partial(losses.focal_loss, alpha=None, gamma=GAMMA, reduction="mean")
        function = losses.binary_focal_loss_with_logits
        return partial(function, alpha=ALPHA, gamma=GAMMA, reduction=reduction)
    if peer == "monai":
        monai_loss = importlib.import_module("monai.losses").FocalLoss
        if softmax:
            return partial(_of_channel, monai_loss(use_softmax=True, to_onehot_y=True, gamma=GAMMA))
        return monai_loss(alpha=ALPHA, gamma=GAMMA)
    if peer == SMP:
        mode = "multiclass" if kind == "labels" else "multilabel"
        return smp_losses().FocalLoss(mode, alpha=ALPHA, gamma=GAMMA)
    return F.cross_entropy


def _of_channel(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    return loss(logits, labels.unsqueeze(1))


def torchvision_ops() -> ModuleType:
    """Returns torchvision's operators, also where its C extension does not load.

    A wheel made for CUDA does not find its libraries beside a torch for CPUs. Then the import fails
    as torchvision describes operators that nobody defined; the focal loss needs none of them.
    """
    try:
        return importlib.import_module("torchvision.ops")
    except RuntimeError:
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torchvision_ops.library = library  # type: ignore[attr-defined]  # it lives as long as this
    return importlib.import_module("torchvision.ops")


def smp_losses() -> ModuleType:
    """Returns the losses of segmentation_models_pytorch without its networks, which need timm."""
    spec = find_spec(SMP)
    package = ModuleType(SMP)
    package.__path__ = list(spec.submodule_search_locations or ()) if spec else []
    sys.modules[SMP] = package
    return importlib.import_module(f"{SMP}.losses")


def found(peer: str) -> bool:
    """Returns whether a peer is installed."""
    return find_spec(peer) is not None


def version_of(peer: str) -> str:
    """Returns the version of a peer."""
    try:
        return version(peer)
    except PackageNotFoundError:
        return "unknown"


def as_text(report: dict[str, Any]) -> str:
    """Returns the report as the facts and a table."""
    head = ("case", "loss", "ms", "of ours", "least", "most", "of eager", "memory", "differs")
    rows = [
        (
            f"{r['size']}, {r['kind']}",
            f"{r['peer']}, {'compiled' if r['compiled'] else 'eager'}",
            f"{r['median_ms']:.0f}",
            *(
                f"x{r[key]:.2f}"
                for key in ("ratio", "least_ratio", "most_ratio", "ratio_to_eager", "memory")
            ),
            f"{r['difference']:.0e}",
        )
        for r in report["results"]
    ]
    facts = {**report["machine"], **report["peers"]}
    notes = [f"not installed: {', '.join(report['absent'])}"] if report["absent"] else []
    notes += [f"failed: {name}: {why}" for name, why in report["failed"].items()]
    return "\n".join(
        [
            ", ".join(f"{key} {value}" for key, value in facts.items()),
            f"{report['processes']} sets of processes, {report['rounds']} rounds each; of ours: "
            "time relative to fldet's run the same way, of eager: to fldet's run eagerly; memory: "
            "peak over the logits; differs: the loss from fldet's, relative; freed memory is "
            f"{report['heap']}",
            *notes,
            "",
            table(head, rows),
        ]
    )


if __name__ == "__main__":
    main()
