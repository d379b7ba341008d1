"""Top-down modulation against torch's functions, and what each map does to its result."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fldet.models.necks.top_down_modulation import TopDownModulation

SIZES = {
    "even": [(8, 12), (4, 6), (2, 3)],
    "odd": [(9, 7), (5, 4), (3, 2)],
    "dilated": [(6, 6), (6, 6), (3, 3)],  # two maps of one stride
}


def neck(**options):
    torch.manual_seed(0)
    options = {
        "lateral_channels": (3, 4),
        "top_down_channels": (5, 2),
        "out_channels": (7, 6),
        **options,
    }
    made = TopDownModulation((4, 6, 8), **options)
    for name, value in made.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(value)
    return made.eval()


def maps(sizes, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, channels, *size, generator=generator)
        for channels, size in zip((4, 6, 8), sizes, strict=True)
    ]


def reference(weights, c3, c4, c5):
    """The two modules with torch's functions; a pixel (y, x) of a fine map is under (y/2, x/2)."""

    def layer(name, x, border=1):
        weight, bias = weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"]
        return F.conv2d(x, weight, bias, padding=border).relu()

    def enlarged(x, fine):
        if x.shape[2:] == fine.shape[2:]:
            return x
        rows, columns = (torch.arange(side) // 2 for side in fine.shape[2:])
        return x[:, :, rows][..., columns]

    t4 = torch.cat([layer("lateral.1", c4), enlarged(layer("top_down.1", c5), c4)], 1)
    out4 = layer("join.1", t4, 0)
    t3 = torch.cat([layer("lateral.0", c3), enlarged(layer("top_down.0", out4), c3)], 1)
    return layer("join.0", t3, 0)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_two_modules_are_what_is_written_down(sizes):
    made, given = neck(), maps(sizes)
    (found,) = made(given)
    assert found.shape == (2, 7, *sizes[0])
    assert 0.05 < (found > 0).float().mean() < 0.95
    torch.testing.assert_close(found, reference(made.state_dict(), *given), rtol=1e-5, atol=1e-5)


def test_without_top_down_weights_only_the_finest_map_counts():
    made, given = neck(), maps(SIZES["odd"])
    with torch.no_grad():
        made.top_down[0].conv.weight.zero_()
        before, others = made(given)[0], maps(SIZES["odd"], seed=2)
        assert made([given[0], *others[1:]])[0].equal(before)
        assert not made([others[0], *given[1:]])[0].equal(before)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_every_map_gets_a_gradient(mode):
    given = [one.requires_grad_() for one in maps(SIZES["odd"])]
    neck(upsample_mode=mode)(given)[0].square().sum().backward()
    assert all((one.grad != 0).float().mean() > 0.3 for one in given)


def test_parameters_of_the_one_module_of_the_config():
    with torch.device("meta"):
        made = TopDownModulation()
    counts = [
        sum(value.numel() for value in part.parameters())
        for part in (made.top_down, made.lateral, made.join)
    ]
    assert counts == [
        9 * 1088 * 256 + 256,
        9 * 320 * 256 + 256,
        512 * 512 + 512,
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out_channels": (7,)}, r"one module less than maps, got \(4, 6, 8\)"),
        ({"upsample_mode": "cubic"}, "nearest or bilinear, got 'cubic'"),
    ],
)
def test_refuses_what_cannot_be_built(options, words):
    with pytest.raises(ValueError, match=words):
        neck(**options)
