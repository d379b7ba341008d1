"""Trains `fldet init`'s models for CPUs and MMDetection's RetinaNet-18, in equal time.

Usage: python tools/own_data.py FOLDER... [--minutes 8] [--jobs 2] [--work-dir DIR]

Each FOLDER is a data set. Contestants: ``lite`` (ImageNet weights from a package) and ``small``
(from nothing) as ``fldet init`` writes them, and the model of MMDetection's own config for
ResNet-18, all of it trained from nothing, at the size that ``lite`` trains at. All train for the
same minutes on the same cores, by ``fldet compare``, whose page has the curves; each with its own
optimizer and batch, and a learning rate that falls to 0 within the minutes. Stopped, the same
command goes on.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mmdet
from mmengine.config import Config

from fldet.analysis.init import init_config
from fldet.config.load import load_config
from fldet.config.text import config_text
from fldet.files import write_atomically
from fldet.text import table

PEER = "retinanet/retinanet_r18_fpn_1x_coco.py"  # in MMDetection's package


def main() -> None:
    """Compares on each data set and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs", "own_data"))
    options = parser.parse_args()
    rows = []
    for data in options.data:
        folder = options.work_dir / data.name
        folder.mkdir(parents=True, exist_ok=True)
        configs = contestants(data, folder)
        command = [sys.executable, "-m", "fldet", "compare", *map(str, configs), "--json"]
        command += ["--minutes", str(options.minutes), "--jobs", str(options.jobs)]
        command += ["--work-dir", str(folder / "compare")]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        rows += figures(data.name, json.loads(done.stdout)["result"]["contestants"])
    header = ("data", "detector", "AP", "AP50", "iterations", "minutes")
    print(table(header, rows))


def contestants(data: Path, folder: Path) -> list[Path]:
    """Returns the configs of a data set, written where they are not there yet."""
    paths = [folder / f"{name}.py" for name in ("lite", "small", "mmdet_r18")]
    for path in paths[:2]:
        if not path.exists():
            init_config(data, path, model=path.stem)
    if not paths[2].exists():
        write_peer(data, load_config(paths[0]), paths[2])
    return paths


def write_peer(data: Path, lite: Config, path: Path) -> None:
    """Writes a config with MMDetection's model, all of it trained, beside data of ``init``."""
    draft = path.with_name("r18.py")
    if not draft.exists():
        init_config(data, draft, model="r18", size=tuple(lite.train_pipeline[2]["scale"]))
    configs = Path(mmdet.__file__).parent / ".mim" / "configs"
    model = Config.fromfile(configs / PEER).model.to_dict()
    model["backbone"] |= {"init_cfg": None, "frozen_stages": -1, "norm_eval": False}
    changes = {
        "model": {"_delete_": True, **model},
        "train_dataloader": {"batch_size": lite.train_dataloader.batch_size},
        "augment": "none",
    }
    text = f'"""MMDetection\'s RetinaNet-18 from nothing."""\n_base_ = \'./{draft.name}\'\n'
    write_atomically(path, text + config_text(changes))


def figures(data: str, contestants: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Returns a row for each contestant: AP and AP50 in percent, and what it trained."""
    return [
        (
            *(data, one["name"]),
            *(f"{one['ap']:.1f}", f"{one['ap50']:.1f}"),
            *(str(one["iterations"]), f"{one['minutes']:.1f}"),
        )
        if one["state"] == "done"
        else (data, one["name"], one["state"], one["reason"], "", "")
        for one in contestants
    ]


if __name__ == "__main__":
    main()
