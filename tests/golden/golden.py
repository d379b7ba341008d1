"""Trains the golden runs; as a script, writes what comes out into ``golden.json``.

python tests/golden/golden.py
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
RECORDS = HERE / "golden.json"
WORK_DIR = HERE / "work_dir"  # of configs/tiny.py, as an earlier version left it at step 20
# Runs commands one after the other; an exit code other than 0 ends it.
ONE_PROCESS = """
import json, runpy, sys
for arguments in json.loads(sys.argv[1]):
    sys.argv = ['fldet', *arguments]
    try:
        runpy.run_module('fldet', run_name='__main__')
    except SystemExit as end:
        if end.code:
            raise
"""
START = "focal_loss"  # the run whose weights the finetuning begins with
RUNS: dict[str, tuple[str, ...]] = {
    START: (),
    "cross_entropy": (),
    "ohem": (),
    "focal_loss_star": (),
    "finetuning_with_ema": ("load_from={start}",),
    "two_processes": (),
}


def machine() -> dict[str, str]:
    """Returns what decides the order in which this machine adds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = [line.partition(":") for line in lines[:8]]  # of the first processor
    wanted = ("model name", "cpu family", "model")
    values = [value.strip() for name, _, value in facts if name.strip() in wanted]
    return {
        "processor": " ".join(values) or platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__.partition("+")[0],
    }


def train(run: str, folder: Path) -> dict[str, Any]:
    """Trains one of ``RUNS`` in a process of its own.

    Args:
        run: its name.
        folder: for the drawn images and the runs, kept between calls.

    Returns:
        ``losses``: for each step the losses by name, as hexadecimal floats; ``figures`` of the
        validation; ``weights``: SHA-256 over names and bytes of the saved tensors.

    Raises:
        RuntimeError: the training failed; the message has its output.
    """
    config = HERE / "configs" / f"{START if run == 'two_processes' else run}.py"
    options = [one.format(start=_checkpoint(folder / START)) for one in RUNS[run]]
    command = [sys.executable, "-m", "fldet", "train", str(config), "--device", "cpu"]
    command += ["--work-dir", str(folder / run)]
    command += ["--gpus", "2"] if run == "two_processes" else []
    command += ["--cfg-options", f"data_root={folder / 'shapes'}/", *options]
    _run([*command, *options], folder)
    return {**_log(folder / run), "weights": _digest(_checkpoint(folder / run))}


def use_work_dir(folder: Path) -> dict[str, Any]:
    """Resumes, tests, predicts with, reports on and exports ``WORK_DIR``, in one process.

    Args:
        folder: with the images that ``train`` has drawn; the work dir is copied into it.

    Returns:
        As ``train``, of the resumed run; ``test``: figures of the best checkpoint; ``predictions``:
        label, score, and x1, y1, x2, y2 in pixels of its detections above 0.05.

    Raises:
        RuntimeError: a command failed; the message has its output.
    """
    run, root = "work_dir", f"data_root={folder / 'shapes'}/"
    shutil.copytree(WORK_DIR, folder / run)
    best, images = str(folder / run / "best_coco_AP_iter_20.pth"), folder / "shapes" / "val2017"
    config = str(folder / run / "tiny.py")
    device = ["--device", "cpu"]
    commands = [
        ["test", config, best, "--work-dir", f"{run}/test", *device, "--cfg-options", root],
        ["predict", best, str(images), "--score-thr", "0.05", "--format", "jsonl", *device],
        ["export", best, "--out", "best.onnx", "--check", str(images)],
        ["report", run, "--cfg-options", root],
        ["train", config, "--work-dir", run, "--resume", *device, "--cfg-options", root],
    ]
    _run([sys.executable, "-c", ONE_PROCESS, json.dumps(commands)], folder)
    result = json.loads((folder / run / "test" / "result.json").read_text())["result"]
    lines = (folder / "predictions" / "predictions.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return {
        **_log(folder / run),
        "weights": _digest(_checkpoint(folder / run)),
        "test": {
            key: value if value is None else value.hex()
            for key, value in result["figures"]["summary"].items()
        },
        "predictions": [
            [label, score.hex(), *(side.hex() for side in box)]
            for one in found
            for label, score, box in zip(one["labels"], one["scores"], one["boxes"], strict=True)
        ],
    }


def _run(command: list[str], folder: Path) -> None:
    """Runs a command in a folder with one thread."""
    root = str(HERE.parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": root}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")


def _checkpoint(work_dir: Path) -> Path:
    return work_dir / "iter_20.pth"


def _log(work_dir: Path) -> dict[str, Any]:
    """Returns the steps and figures of the newest log of a run."""
    scalars = max(work_dir.glob("*/vis_data/scalars.json"))
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    figures = {key: value for row in rows for key, value in row.items() if key.startswith("coco/")}
    return {
        "losses": [
            {key: value.hex() for key, value in step.items() if "loss" in key or key == "grad_norm"}
            for step in steps
        ],
        "figures": {key: float(value).hex() for key, value in figures.items()},
    }


def _digest(checkpoint: Path) -> str:
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    digest = hashlib.sha256()
    for part in ("state_dict", "ema_state_dict"):
        for name, tensor in sorted(content.get(part, {}).items()):
            digest.update(f"{part} {name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def main() -> None:
    """Writes the record of this machine, in place of an earlier one."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {run: train(run, Path(folder)) for run in RUNS}
        runs["work_dir"] = use_work_dir(Path(folder))
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else []
    others = [one for one in records if one["machine"] != machine()]
    RECORDS.write_text(json.dumps([*others, {"machine": machine(), "runs": runs}], indent=1) + "\n")


if __name__ == "__main__":
    main()
