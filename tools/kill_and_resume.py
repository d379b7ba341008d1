"""Kills a training with SIGKILL at many moments and compares it with one that was never killed.

The run is killed inside saves (the file is written, but not yet under its name), inside
evaluations, in the first and the last iteration, in those on both sides of the end of an epoch, and
at random ones; after each kill it is resumed, with another number of loader processes. Then
weights, optimizer, schedule, scores and every line of the log are compared bit for bit; times are
left out. The log must have one line for each iteration and each validation.

Usage: python tools/kill_and_resume.py [--kills 20] [--seed 0] [--iterations 24] [--epoch 19]
       [--folder DIR] [--config FILE] [--cfg-options KEY=VALUE ...]
The sampler of the default config has no end. For one that begins anew after each epoch:
--cfg-options train_dataloader.sampler.type=DefaultSampler
train_dataloader.dataset.num_train=38 val_dataloader.dataset.num_train=38
Exit code 0 if all is equal, 1 if not.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ROOT / "configs" / "shapes" / "retinanet_r18_shapes_short.py"
# of the default config: seconds on one core
SMALL = (
    "train_dataloader.batch_size=2 train_dataloader.persistent_workers=False "
    "train_dataloader.dataset.num_train=37 train_dataloader.dataset.num_val=6 "
    "train_dataloader.dataset.image_size=64 val_dataloader.num_workers=0 "
    "val_dataloader.persistent_workers=False val_dataloader.dataset.num_train=37 "
    "val_dataloader.dataset.num_val=6 val_dataloader.dataset.image_size=64 "
    "model.backbone.base_channels=8 model.neck.in_channels=[8,16,32,64]"
)
SAVE_EVERY, VALIDATE_EVERY = 4, 8
TIMES = ("time", "data_time", "memory", "eta")


def main() -> int:
    """Runs, kills, resumes and compares; returns the exit code."""
    options = parse()
    if options.child:
        return child(options)
    folder = Path(options.folder or tempfile.mkdtemp(prefix="kill_and_resume_"))
    started = time.perf_counter()
    train(options, folder / "reference", workers=1)
    moments = choose_moments(options)
    for number, moment in enumerate(moments):
        code = train(options, folder / "killed", workers=number % 3, moment=moment)
        was_killed = code == -signal.SIGKILL
        print(f"{moment:>16}: {'killed' if was_killed else f'NOT killed, exit code {code}'}")
        if not was_killed:
            return 1
    train(options, folder / "killed", workers=1)
    problems = differences(folder, options.iterations)
    print("\n".join(problems) or "equal: weights, optimizer, schedule, scores, log")
    print(f"{len(moments)} kills, {time.perf_counter() - started:.0f} s, {folder}")
    return 1 if problems else 0


def parse() -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=24)
    parser.add_argument("--epoch", type=int, default=19, help="iterations of an epoch")
    parser.add_argument("--folder")
    parser.add_argument("--config", default=str(SHAPES))
    parser.add_argument("--cfg-options", nargs="*", default=[])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--moment", default="", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def choose_moments(options: argparse.Namespace) -> list[str]:
    """Returns KIND:ITERATION in the order in which a run meets them; kinds as in ``Killer``."""
    rng, last = random.Random(options.seed), options.iterations
    saves = range(SAVE_EVERY, last, SAVE_EVERY)
    validations = range(VALIDATE_EVERY, last, VALIDATE_EVERY)
    fixed = [(1, "iteration"), (rng.choice(saves), "save"), (last, "iteration")]
    fixed += [(rng.choice(validations), "evaluation"), (last, "save"), (last, "evaluation")]
    if options.epoch < last:
        fixed += [(options.epoch, "iteration"), (options.epoch + 1, "iteration")]
    chosen = fixed[: options.kills]
    while len(chosen) < options.kills:
        kinds = [(rng.randint(2, last - 1), "iteration"), (rng.choice(saves), "save")]
        kinds += [(rng.choice(validations), "evaluation"), (VALIDATE_EVERY, "best")]
        chosen.append(rng.choice(kinds))
    order = ["iteration", "save", "best", "evaluation"]
    chosen.sort(key=lambda one: (one[0], order.index(one[1])))
    return [f"{kind}:{iteration}" for iteration, kind in chosen]


def train(options: argparse.Namespace, work_dir: Path, *, workers: int, moment: str = "") -> int:
    """Returns the exit code of one run of ``fldet train --resume``; prints its log if it fails."""
    command = [sys.executable, __file__, "--child", str(work_dir), "--moment", moment]
    command += ["--workers", str(workers), "--iterations", str(options.iterations)]
    command += ["--config", options.config, "--cfg-options", *options.cfg_options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, -signal.SIGKILL) or (done.returncode and not moment):
        print(done.stdout, done.stderr, file=sys.stderr)
        raise SystemExit(f"a run failed with exit code {done.returncode}")
    return done.returncode


def child(options: argparse.Namespace) -> int:
    """Trains in this process, which kills itself at ``options.moment``."""
    import fldet.engine.train as engine
    from fldet.config.load import load_config

    work_dir = Path(options.child)
    small = SMALL.split() if Path(options.config) == SHAPES else []
    cfg = load_config(
        options.config,
        [
            *small,
            f"data_root={work_dir.parent / 'data'}",
            f"train_cfg.max_iters={options.iterations}",
            f"train_cfg.val_interval={VALIDATE_EVERY}",
            f"train_dataloader.num_workers={options.workers}",
            f"default_hooks.checkpoint.interval={SAVE_EVERY}",
            "default_hooks.logger.interval=1",
            *options.cfg_options,
        ],
    )
    if options.moment:
        build = engine.build_runner
        engine.build_runner = lambda *args: watched(build(*args), options.moment)
    engine.train(cfg, work_dir=work_dir, resume=True, device="cpu")
    return 0


def watched(runner: Any, moment: str) -> Any:
    """Returns the runner with a hook that kills the process at ``moment``."""
    from mmengine.hooks import Hook

    kind, _, text = moment.partition(":")
    iteration = int(text)

    class Killer(Hook):
        """``iteration``: within it; ``evaluation``: after its first batch.

        ``save`` and ``best``: the file is written, but not yet under its name.
        """

        priority = "VERY_HIGH"

        def after_train_iter(self, runner: Any, *_args: Any, **_kwargs: Any) -> None:
            if kind == "iteration" and runner.iter + 1 == iteration:
                kill()

        def after_val_iter(self, runner: Any, *_args: Any, **_kwargs: Any) -> None:
            if kind == "evaluation" and runner.iter == iteration:
                kill()

    if kind in ("save", "best"):
        replace = os.replace
        name = f"iter_{iteration}.pth" if kind == "save" else f"best_coco_AP_iter_{iteration}.pth"

        def killed_before_the_name_is_there(source: str, target: Any) -> None:
            if Path(target).name == name:
                kill()
            replace(source, target)

        os.replace = killed_before_the_name_is_there
    runner.register_hook(Killer())
    return runner


def kill() -> None:
    """Ends this process as a crash of the machine would."""
    os.kill(os.getpid(), signal.SIGKILL)


def differences(folder: Path, iterations: int) -> list[str]:
    """Returns a line for each thing in which the two runs differ."""
    from fldet.checkpoints.files import read_checkpoint

    names = "reference", "killed"
    first, second = (
        state(read_checkpoint(folder / name / f"iter_{iterations}.pth")) for name in names
    )
    problems = [
        f"{key} differs: {first.get(key)!r:.80} and {second.get(key)!r:.80}"
        for key in sorted({*first, *second})
        if not equal(first.get(key), second.get(key))
    ]
    logs = [log_lines(folder / name) for name in names]
    if logs[0] != logs[1]:
        wrong = [pair for pair in zip(*logs, strict=False) if pair[0] != pair[1]]
        problems.append(f"the logs differ: {len(logs[0])} and {len(logs[1])} lines; {wrong[:1]}")
    for name, log in zip(names, logs, strict=True):
        problems += lost_or_doubled(name, log, iterations)
    print(f"compared: {len(first)} values of the last checkpoint, {len(logs[0])} lines of the log")
    litter = [path.name for path in (folder / "killed").glob(".*")]
    kept = [sorted(path.name for path in (folder / name).glob("*.pth")) for name in names]
    if litter or kept[0] != kept[1]:
        problems.append(f"files differ: {kept[0]} and {kept[1]}, temporary {litter}")
    return problems


def lost_or_doubled(name: str, log: list[dict[str, Any]], iterations: int) -> list[str]:
    """Returns a line if a log has not one line for each iteration and at most one a validation."""
    steps = [line["step"] for line in log if "lr" in line]
    validations = [line["step"] for line in log if "lr" not in line]
    if steps == list(range(1, iterations + 1)) and len(set(validations)) == len(validations):
        return []
    return [f"the log of {name} has lines of the iterations {steps}, validations {validations}"]


def state(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the parts of a checkpoint that do not depend on clock and folder, by dotted names."""
    hub = content["message_hub"]
    scalars = {
        name: history["log_history"].tolist()
        for name, history in hub["log_scalars"].items()
        if name.split("/")[-1] not in TIMES
    }
    names = ("state_dict", "ema_state_dict", "optimizer", "param_schedulers")
    parts = {key: content[key] for key in names if key in content}
    info = {
        key: hub["runtime_info"].get(key)
        for key in ("best_score", "validated_iter", "early_stopping")
    }
    return dict(flat({**parts, "scalars": scalars, "info": info}))


def flat(value: Any, prefix: str = "") -> Any:
    """Yields the leaves of nested dictionaries and lists of dictionaries with their names."""
    if isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        yield prefix, value
        return
    for key, item in items:
        yield from flat(item, f"{prefix}.{key}" if prefix else key)


def equal(first: Any, second: Any) -> bool:
    """Returns whether two leaves are the same, bit for bit."""
    import torch

    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.equal(first, second)
    return repr(first) == repr(second)


def log_lines(work_dir: Path) -> list[dict[str, Any]]:
    """Returns the lines of all logs of a work dir in order, without times."""
    lines = [
        json.loads(line)
        for path in sorted(work_dir.glob("*/vis_data/scalars.json"))
        for line in path.read_text().splitlines()
    ]
    return [{key: x for key, x in line.items() if key not in TIMES} for line in lines]


if __name__ == "__main__":
    raise SystemExit(main())
