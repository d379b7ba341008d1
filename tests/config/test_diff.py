import pytest

from fldet.config.diff import Difference, diff_configs
from fldet.config.load import load_config


@pytest.fixture
def diff(tmp_path):
    def _diff(a, b):
        (tmp_path / "a.py").write_text(a)
        (tmp_path / "b.py").write_text(b)
        found = diff_configs(load_config(tmp_path / "a.py"), load_config(tmp_path / "b.py"))
        return [(item.key, item.a, item.b, item.in_a + 2 * item.in_b) for item in found]

    return _diff


A, B, BOTH = 1, 2, 3  # where a key is
LOADER = "train_dataloader = dict(dataset=dict(pipeline=train_pipeline))\n"
FLIP, LOAD, RESIZE = ({"type": name} for name in ("Flip", "Load", "Resize"))


@pytest.mark.parametrize(
    ("a", "b", "expected", "why"),
    [
        ("x = 1", "x = 1", [], "equal"),
        ("x = 1", "x = 2", [("x", 1, 2, BOTH)], "a value"),
        ("x = None", "y = None", [("x", None, None, A), ("y", None, None, B)], "None is a value"),
        (
            "m = dict(a=1, b=dict(c=2))",
            "m = dict(a=1, b=dict(c=3, d=4))",
            [("m.b.c", 2, 3, BOTH), ("m.b.d", None, 4, B)],
            "nested",
        ),
        (
            "m = dict(b=dict(c=2, d={}))",
            "m = {}",
            [("m.b.c", 2, None, A), ("m.b.d", {}, None, A)],
            "a dict of one side by its leaves",
        ),
        ("m = None", "m = dict(a=1)", [("m", None, {"a": 1}, BOTH)], "a dict for a value"),
        ("m = [1, 2]", "m = [1, 2, 3]", [("m", [1, 2], [1, 2, 3], BOTH)], "a list of values"),
        ("m = (1, 2)", "m = [1, 2]", [("m", (1, 2), [1, 2], BOTH)], "a tuple is no list"),
        (
            "m = [dict(a=i) for i in range(11)]",
            "m = [dict(a=i if i in (0, 5) else -1) for i in range(11)]",
            [(f"m.{i}.a", i, -1, BOTH) for i in (1, 2, 3, 4, 6, 7, 8, 9, 10)],
            "equally long lists, 10 after 9",
        ),
        (
            "m = [dict(type='Load'), dict(type='Resize'), dict(type='Flip', prob=0.5)]",
            "m = [dict(type='Load'), dict(type='Flip', prob=0.1)]",
            [("m.1", RESIZE, None, A), ("m.2.prob", 0.5, 0.1, BOTH)],
            "an element less; the others are compared",
        ),
        (
            "m = [dict(type='Flip')]",
            "m = [dict(type='Load'), dict(type='Flip'), dict(type='Resize')]",
            [("m.0", None, LOAD, B), ("m.2", None, RESIZE, B)],
            "elements more, by their index in B",
        ),
    ],
)
def test_differences(diff, a, b, expected, why):
    assert diff(a, b) == expected, why


@pytest.mark.parametrize(
    ("a", "b", "expected", "why"),
    [
        (
            "train_pipeline = [dict(type='Resize', scale=1)]\n" + LOADER,
            "train_pipeline = [dict(type='Resize', scale=2)]\n" + LOADER,
            ["train_dataloader.dataset.pipeline.0.scale"],
            "the loaders show it",
        ),
        (
            "train_pipeline = [dict(scale=1)]\n" + LOADER,
            "train_pipeline = [dict(scale=1)]\n" + LOADER + "train_pipeline = [dict(scale=2)]",
            ["train_pipeline.0.scale"],
            "a variable that the loader no longer repeats",
        ),
        (
            "shapes = dict(n=1, k=2)\ntrain_dataloader = dict(dataset=dict(x=1, **shapes))",
            "train_dataloader = dict(dataset=dict(x=1))",
            ["train_dataloader.dataset.k", "train_dataloader.dataset.n"],
            "unpacked",
        ),
        (
            "randomness = dict(seed=0)\ntrain_dataloader = dict(dataset=dict(seed=0, n=1))",
            "randomness = dict(seed=1)\ntrain_dataloader = dict(dataset=dict(seed=1, n=1))",
            ["randomness.seed", "train_dataloader.dataset.seed"],
            "a single equal item is no sign of a copy",
        ),
        (
            "resume = False\ntrain_dataloader = dict(shuffle=False)",
            "resume = True\ntrain_dataloader = dict(shuffle=True)",
            ["resume", "train_dataloader.shuffle"],
            "nor is an equal value",
        ),
        (
            "val_dataloader = dict(n=1)\ntest_dataloader = val_dataloader",
            "val_dataloader = dict(n=2)\ntest_dataloader = val_dataloader",
            ["test_dataloader.n", "val_dataloader.n"],
            "a loader is no helper",
        ),
    ],
)
def test_helper_variables_do_not_show_twice(diff, a, b, expected, why):
    assert [key for key, *_ in diff(a, b)] == expected, why


def test_two_of_our_configs():
    found = diff_configs(
        load_config("retinanet/r50_fpn_1x.py"), load_config("retinanet/r101_fpn_1x.py")
    )
    weights = "torchvision://resnet50", "torchvision://resnet101"
    assert found == [
        Difference("model.backbone.depth", 50, 101, True, True),
        Difference("model.backbone.init_cfg.checkpoint", *weights, True, True),
    ]
