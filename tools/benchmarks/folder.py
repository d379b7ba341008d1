"""Times ``fldet predict`` of a folder against its network alone, in pictures per second.

Usage: python tools/benchmarks/folder.py [--images 200] [--rounds 3] [--checkpoint WORK_DIR]
       [--source FOLDER] [--memory 10000] [--json]

"network alone" has all images in memory, resized, before its clock starts, and finds the same boxes
in batches of the same size. Against it stand the command's lines of JSON, and these with a picture
drawn of each image. All run in this process in alternating rounds, the model loaded once in each.
Without a checkpoint the model is the one of configs/shapes, with random weights, of which the best
five boxes of an image count, and the images are made up: JPEGs of 640 x 480.

``--memory`` predicts on so many small images of many sizes, with pictures, in a process of its own,
and prints by how many MiB the largest memory of its last tenth is above that of its second tenth.
"""

import argparse
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.runner import save_checkpoint
from timing import Line, machine, paired, table

import fldet.inference.predict as command
from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.inference.detector import Detector
from fldet.inference.predict import predict

BOXES = 5  # an image, of random weights
BATCH = 8
GOAL = 0.9  # of the lines of JSON


# Of a checkpoint, a folder, an output folder, a score, a count.
WATCHED = """
import threading, time
from pathlib import Path
from fldet.inference.predict import predict

checkpoint, source, out = Path({0!r}), {1!r}, Path({2!r})
seen = []  # bytes written, and MiB of the process
def watch():
    file = out / "predictions.jsonl"
    while True:
        time.sleep(0.2)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        seen.append((file.stat().st_size if file.exists() else 0, pages * 4096 / 2**20))

threading.Thread(target=watch, daemon=True).start()
done = predict(checkpoint, source, out, score_thr={3}, device="cpu")
assert done.images == {4}
size = seen[-1][0]
early = [mib for written, mib in seen if size * 0.1 < written <= size * 0.2]
late = [mib for written, mib in seen if written > size * 0.9]
print(max(late) - max(early))
"""


def main() -> None:
    """Prints a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds counted (default 3)")
    parser.add_argument("--checkpoint", type=Path, help="of a trained model")
    parser.add_argument("--source", type=Path, help="folder of images")
    parser.add_argument("--memory", type=int, default=0, help="images to watch the memory over")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = args.source or made_up_images(folder / "images", args.images)
        checkpoint = args.checkpoint or random_checkpoint(folder / "random.pth")
        score_thr = 0.3 if args.checkpoint else score_of_best(checkpoint, source)
        paths = sorted(str(path) for path in source.iterdir())[: args.images]
        ways = all_ways(checkpoint, paths, score_thr, folder / "out")
        timings = paired(ways, rounds=args.rounds, warmup=1)
        results = [
            {"way": way, "images": len(paths), **asdict(timing)} for way, timing in timings.items()
        ]
        growth = None
        if args.memory:
            growth = rise_mib(checkpoint, args.memory, score_thr, folder)
    found = [
        Line(f"predict of a folder, {one['way']}", "network alone", one["speedup"], goal)
        for one, goal in zip(results[1:], (GOAL, None), strict=True)
    ]
    if growth is not None:
        what = f"memory over {args.memory} pictures"
        found.append(Line(what, "", growth, 5.0, "MiB", at_most=True))
    report = {
        "schema": 1,
        "machine": machine(),
        "results": results,
        "lines": [asdict(line) for line in found],
    }
    print(json.dumps(report) if args.json else as_text(report))


def all_ways(
    checkpoint: Path, paths: list[str], score_thr: float, out: Path
) -> dict[str, Callable[[], Any]]:
    """Returns what is timed, by name; the model is loaded before, as the commands do it."""
    detector = Detector.load(checkpoint, device="cpu").faster()
    window = detector.images_at_once(BATCH)
    prepared = [detector.prepare(path) for path in paths]
    command.load_detector = lambda *_, **__: detector  # type: ignore[assignment]

    def network_alone() -> None:
        for first in range(0, len(prepared), window):
            detector.detect(prepared[first : first + window], score_thr, BATCH)

    def folder(formats: tuple[str, ...]) -> None:
        shutil.rmtree(out, ignore_errors=True)
        source = str(Path(paths[0]).parent)
        done = predict(
            *(checkpoint, source, out), formats=formats, score_thr=score_thr, batch_size=BATCH
        )
        if done is None or done.images != len(paths):
            raise RuntimeError(f"{done} of {len(paths)} images")

    return {
        "network alone": network_alone,
        "lines": lambda: folder(("jsonl",)),
        "lines and pictures": lambda: folder(("pictures",)),
    }


def made_up_images(
    folder: Path, count: int, sizes: Sequence[tuple[int, int]] = ((640, 480),)
) -> Path:
    """Writes smooth noise with some grain, whose files are as large as those of photographs."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
        size = sizes[number % len(sizes)]
        smooth = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).astype(np.int16)
        noisy = smooth + rng.integers(-8, 9, smooth.shape, dtype=np.int16)
        pixels = np.clip(noisy, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return folder


def random_checkpoint(file: Path) -> Path:
    """Writes the model of configs/shapes with random weights, as a run would."""
    cfg = load_config("shapes/retinanet_r18_shapes.py")
    torch.manual_seed(0)
    model = build_model(cfg)
    names = [str(number) for number in range(cfg.model.bbox_head.num_classes)]
    meta = {"cfg": cfg.pretty_text, "dataset_meta": {"classes": names}}
    save_checkpoint({"state_dict": model.state_dict(), "meta": meta}, str(file))
    return file


def score_of_best(checkpoint: Path, source: Path) -> float:
    """Returns the score that the best boxes of an image have at least."""
    detector = Detector.load(checkpoint, device="cpu")
    first = sorted(str(path) for path in source.iterdir())[:4]
    return float(np.mean([one.scores[BOXES - 1] for one in detector.predict(first, 0.0)]))


def rise_mib(checkpoint: Path, count: int, score_thr: float, folder: Path) -> float:
    """Returns how far the resident memory of the command rises after a fifth of the images."""
    small, links, out = (folder / name for name in ("small", "links", "memory"))
    links.mkdir()
    sizes = np.random.default_rng(0).integers(60, 240, (60, 2)).tolist()
    paths = sorted(made_up_images(small, len(sizes), sizes).iterdir())
    for number in range(count):
        (links / f"{number:06d}.jpg").symlink_to(paths[number % len(paths)])
    code = WATCHED.format(*map(str, (checkpoint, links, out)), score_thr, count)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.split()[-1])


def as_text(report: dict[str, Any]) -> str:
    """Returns the report as the machine's line and a table."""
    rows = [
        (
            one["way"],
            f"{1000 * one['images'] / one['median_ms']:.1f}",
            f"{one['median_ms'] / one['images']:.1f}",
            f"{one['speedup']:.2f}",
        )
        for one in report["results"]
    ]
    header = ("way", "pictures a second", "ms each", "of the network alone")
    rises = [f"{one['what']}: {one['reached']:+.1f} MiB" for one in report["lines"][2:]]
    return "\n".join([str(report["machine"]), table(header, rows), *rises])


if __name__ == "__main__":
    main()
