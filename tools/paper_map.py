"""The page docs/evidence/paper-map.md: where the paper's statements are in configs and code."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fldet.config.diff import diff_configs
from fldet.config.load import load_config
from fldet.paper import Row, read_tables

ROOT = Path(__file__).resolve().parent.parent
CODE = [ROOT / "fldet", ROOT / "configs" / "_base_"]
CITATION = re.compile(r"\b(Eq\.|Sec\.|Appendix|Table|Figure) ([0-9]+(?:\.[0-9]+)?[a-e]?|[AB])\b")
THREE = ("AP", "AP50", "AP75")
# Says for testing what the training pipeline says too; or follows from the number of iterations.
ONLY_REPEATS = (
    "val_dataloader.dataset.pipeline",
    "train_cfg.val_interval",
    "param_scheduler.1.end",
)
MORE = re.compile(r"(?:,| and) ([0-9]+(?:\.[0-9]+)?[a-e]?)\b")

# The settings of Sec. 4 and 5: what the paper says, and the key of the config that says it.
MODEL = "retinanet/r50_fpn_1x.py"
SETTINGS = [
    ("4", "FPN levels P3 to P7, no P2", "model.neck.start_level"),
    ("4", "five levels", "model.neck.num_outs"),
    ("4", "256 channels", "model.neck.out_channels"),
    ("4", "P6 by a stride-2 convolution on C5", "model.neck.add_extra_convs"),
    ("4", "ReLU between P6 and P7", "model.neck.relu_before_extra_convs"),
    ("4", "anchors of 32 to 512 pixels on P3 to P7", "model.bbox_head.anchor_generator.sizes"),
    ("4", "three scales per octave", "model.bbox_head.anchor_generator.num_scales"),
    ("4", "aspect ratios 1:2, 1:1, 2:1", "model.bbox_head.anchor_generator.ratios"),
    ("4", "positive from IoU .5", "model.train_cfg.assigner.pos_iou_thr"),
    ("4", "background below .4", "model.train_cfg.assigner.neg_iou_thr"),
    ("4", "four convolutions in each subnet", "model.bbox_head.stacked_convs"),
    ("4", "of 256 channels", "model.bbox_head.feat_channels"),
    ("4", "smooth L1 for boxes", "model.bbox_head.loss_bbox.type"),
    ("4.1", "gamma = 2", "model.bbox_head.loss_cls.gamma"),
    ("4.1", "alpha = .25", "model.bbox_head.loss_cls.alpha"),
    ("4.1", "divided by the anchors assigned to a box", "model.bbox_head.normalizer.type"),
    ("4.1", "prior pi = .01", "model.bbox_head.prior_prob"),
    ("4.1", "ImageNet weights", "model.backbone.init_cfg.checkpoint"),
    ("4.1", "score threshold .05", "model.test_cfg.score_thr"),
    ("4.1", "1000 best predictions of a level", "model.test_cfg.nms_pre"),
    ("4.1", "NMS at .5", "model.test_cfg.nms.iou_threshold"),
    ("4.1", "SGD", "optim_wrapper.optimizer.type"),
    ("4.1", "learning rate .01", "optim_wrapper.optimizer.lr"),
    ("4.1", "for 16 images", "auto_scale_lr.base_batch_size"),
    ("4.1", "weight decay .0001", "optim_wrapper.optimizer.weight_decay"),
    ("4.1", "momentum .9", "optim_wrapper.optimizer.momentum"),
    ("4.1", "90k iterations", "train_cfg.max_iters"),
    ("4.1", "divided by 10 at 60k and 80k", "param_scheduler.1.milestones"),
    ("4.1", "horizontal flips", "train_dataloader.dataset.pipeline.3.type"),
]


def paper_map() -> str:
    """Returns the page without its head."""
    return "\n\n".join(["# Where the paper is in fldet", settings(), rows(), citations()]) + "\n"


def settings() -> str:
    """Returns a table of what Sec. 4 says, with the value of our config and where it is set."""
    cfg = load_config(MODEL)
    lines = [
        f"## The model and its training\n\nValues of `configs/{MODEL}`.\n",
        "| section | the paper | key | value |",
        "|---|---|---|---|",
    ]
    for section, statement, key in SETTINGS:
        lines.append(f"| {section} | {statement} | `{key}` | `{value_at(cfg, key)!r}` |")
    return "\n".join(lines)


def rows() -> str:
    """Returns for each table its rows, the paper's figures, and what a row's config changes."""
    parts = [
        "## The rows of the tables\n\n"
        "What a row changes is against the model of Table 1e of the same depth and 600 pixels."
    ]
    for table in read_tables():
        lines = [
            f"### {table.name}: {table.title} ({table.split})\n",
            "| row | config | AP | AP50 | AP75 | changes |",
            "|---|---|---|---|---|---|",
        ]
        for row in table.rows:
            figures = [f"{row.paper[name]:.1f}" if name in row.paper else "-" for name in THREE]
            lines.append(
                f"| {row.name} | [{row.config.stem}](../../{row.config}) | {' | '.join(figures)} "
                f"| {changes(row)} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def changes(row: Row) -> str:
    """Returns the keys in which a row differs from the paper's model, as text."""
    if row.small:
        return f"another system; small: [{row.small.stem}](../../{row.small})"
    cfg = load_config(ROOT / row.config)
    base = load_config(f"paper/table1e/r{cfg.model.backbone.depth}_600px.py")
    found = [item for item in diff_configs(base, cfg) if not item.key.startswith(ONLY_REPEATS)]
    replaced = [item.key.removesuffix(".type") for item in found if item.key.endswith(".type")]
    texts = {key: f"{key} = {call(value_at(cfg, key))}" for key in replaced}
    for item in found:
        if not any(item.key.startswith(f"{key}.") for key in replaced):
            texts[item.key] = f"{item.key} = {item.b!r}"
    return "<br>".join(f"`{text.removeprefix('model.')}`" for text in texts.values()) or "none"


def value_at(cfg: Any, key: str) -> Any:
    """Returns the value of a dotted key."""
    for part in key.split("."):
        cfg = cfg[int(part)] if part.isdigit() else cfg[part]
    return cfg


def call(config: Any) -> str:
    """Returns the config of an object as the call that makes it, without what all have."""
    arguments = (
        f"{key}={value!r}"
        for key, value in config.items()
        if key not in ("type", "use_sigmoid") and not isinstance(value, dict)
    )
    return f"{config['type'].removeprefix('fldet.')}({', '.join(arguments)})"


def citations() -> str:
    """Returns for each equation, section and figure of the paper the places that name it."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for folder in CODE:
        for path in sorted(folder.rglob("*.py")):
            for citation, symbol in citations_in(path):
                name = str(path.relative_to(ROOT))
                place = f"`{name}`" + (f" `{symbol}`" if symbol else "")
                if place not in places[citation]:
                    places[citation].append(place)
    lines = [
        "## Equations, sections, tables and figures\n\nWhere code and base configs name them.\n",
        "| the paper | where |",
        "|---|---|",
    ]
    for kind, number in sorted(places, key=order):
        lines.append(f"| {kind} {number} | {', '.join(places[kind, number])} |")
    return "\n".join(lines)


def order(citation: tuple[str, str]) -> tuple[int, list[int], str]:
    """Returns what sorts sections before equations, and 4.1 after 4."""
    kind, number = citation
    kinds = ("Sec.", "Eq.", "Table", "Figure", "Appendix")
    return kinds.index(kind), [int(n) for n in re.findall(r"\d+", number)], number


def citations_in(path: Path) -> Iterator[tuple[tuple[str, str], str]]:
    """Yields (kind, number) of what a file cites, and the function or class it stands in."""
    text = path.read_text(encoding="utf-8")
    symbols = [
        (node.lineno, node.end_lineno or node.lineno, node.name)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    ]
    for number, line in enumerate(text.splitlines(), start=1):
        inside = [(end - start, name) for start, end, name in symbols if start <= number <= end]
        symbol = min(inside)[1] if inside else ""
        for found in CITATION.finditer(line):
            yield (found[1], found[2]), symbol
            rest = line[found.end() :]
            while more := MORE.match(rest):
                yield (found[1], more[1]), symbol
                rest = rest[more.end() :]
