"""Writes the table of focal losses into docs/losses.md, with a reproduction of each fault.

Usage: .venv-peers/bin/python tools/conformance.py (make conformance)

Each reproduction is run, and what it prints stands below it. It takes about two minutes.
"""

import contextlib
import io
import os
import platform
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from fldet.losses.conformance import CHECKS, Judged, Result, judged_of, results_of
from fldet.losses.conformance.contract import in_words
from fldet.losses.conformance.tables import as_markdown, check_list

PAGE = Path(__file__).resolve().parent.parent / "docs" / "losses.md"
BEGIN, END = (
    "<!-- made by make conformance: begin -->\n",
    "<!-- made by make conformance: end -->\n",
)


@dataclass(frozen=True)
class Call:
    """How a person calls a loss.

    Attributes:
        imports: a line.
        text: an expression of logits x and targets t, with {gamma} and {reduction} to fill in.
    """

    imports: str
    text: str


MONAI = "from monai.losses import FocalLoss"
SIGMOIDS, SOFTMAXES = (
    {
        "fldet.losses:sigmoid_focal_loss": Call(
            "from fldet.losses import sigmoid_focal_loss",
            'sigmoid_focal_loss(x, t, None, {gamma:g}, "{reduction}")',
        ),
        "torchvision.ops:sigmoid_focal_loss": Call(
            "from torchvision.ops import sigmoid_focal_loss",
            'sigmoid_focal_loss(x, t, -1, {gamma:g}, "{reduction}")',
        ),
        "kornia.losses:binary_focal_loss_with_logits": Call(
            "from kornia.losses import binary_focal_loss_with_logits",
            'binary_focal_loss_with_logits(x, t, None, {gamma:g}, "{reduction}")',
        ),
        "monai.losses:FocalLoss": Call(
            MONAI, 'FocalLoss(gamma={gamma:g}, reduction="{reduction}")(x, t)'
        ),
        "segmentation_models_pytorch.losses:FocalLoss": Call(
            "from segmentation_models_pytorch.losses import FocalLoss",
            'FocalLoss("binary", gamma={gamma:g}, reduction="{reduction}")(x, t)',
        ),
        "imbalanced_losses:SigmoidFocalLoss": Call(
            "from imbalanced_losses import SigmoidFocalLoss",
            'SigmoidFocalLoss(-1, {gamma:g}, "{reduction}")(x, t)',
        ),
    },
    {
        "fldet.losses:softmax_focal_loss": Call(
            "from fldet.losses import softmax_focal_loss",
            'softmax_focal_loss(x, t, gamma={gamma:g}, reduction="{reduction}")',
        ),
        "kornia.losses:focal_loss": Call(
            "from kornia.losses import focal_loss",
            'focal_loss(x, t, None, {gamma:g}, "{reduction}")',
        ),
        "monai.losses:FocalLoss@softmax": Call(
            MONAI,
            "FocalLoss(use_softmax=True, to_onehot_y=True, gamma={gamma:g}, "
            'reduction="{reduction}")(x, t[:, None])',
        ),
        "imbalanced_losses:SoftmaxFocalLoss": Call(
            "from imbalanced_losses import SoftmaxFocalLoss",
            'SoftmaxFocalLoss(gamma={gamma:g}, reduction="{reduction}")(x, t)',
        ),
    },
)

# Of each check: what is right, and the lines for a sigmoid and for a softmax, with {none}, {sum} or
# {mean} for the call; empty where no loss has failed it so far.
GRADIENT = "{sum}.backward()\nprint(x.grad)"
LINES: dict[str, tuple[str, str, str]] = {
    "finite gradient, gamma 0.5": (
        "finite gradients",
        "x, t = torch.tensor([[20.0, -110.0]], requires_grad=True), torch.tensor([[1.0, 0.0]])\n"
        + GRADIENT,
        "x, t = torch.tensor([[20.0, 0.0]], requires_grad=True), torch.tensor([0])\n" + GRADIENT,
    ),
    "digits of the gradient": (
        "3.9e-22 in size, as in float64; gamma is 1",
        "x, t = torch.tensor([[25.0, -25.0]], requires_grad=True), torch.tensor([[1.0, 0.0]])\n"
        "loss = {none}\nloss.sum().backward()\nprint(x.grad)",
        "x, t = torch.tensor([[25.0, 0.0]], requires_grad=True), torch.tensor([0])\n"
        "loss = {none}\nloss.sum().backward()\nprint(x.grad)",
    ),
    "soft targets": (
        "0.4981, the expectation over both labels",
        "x, t = torch.tensor([[1.0]]), torch.tensor([[0.3]])\nprint({none})",
        "",
    ),
    "range of targets": (
        "an error, not a negative loss",
        "x, t = torch.tensor([[10.0]]), torch.tensor([[2.0]])\nprint({none})",
        "",
    ),
    "float64": (
        "torch.float64",
        "x, t = torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)\n"
        "loss = {none}\nprint(loss.dtype)",
        "x, t = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])\n"
        "loss = {none}\nprint(loss.dtype)",
    ),
    "reductions": (
        "twice the same",
        "x, t = torch.zeros(3, 4), torch.zeros(3, 4)\nprint({sum})\nprint({none}.sum())",
        "x, t = torch.zeros(3, 4), torch.zeros(3, dtype=torch.long)\n"
        "print({sum})\nprint({none}.sum())",
    ),
    "no example": (
        "0",
        "x, t = torch.zeros(0, 4), torch.zeros(0, 4)\nprint({sum})",
        "x, t = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)\nprint({sum})",
    ),
    "shape of targets": (
        "an error",
        "x, t = torch.zeros(3, 4), torch.ones(4, 3)\nprint({sum})",
        "",
    ),
    "vmap": (
        "a gradient for each batch",
        "",
        "x, t = torch.zeros(5, 2, 3), torch.zeros(5, 2, dtype=torch.long)\n"
        "\n\ndef one(x, t):\n    loss = {none}\n    return loss.sum()\n\n\n"
        "print(torch.func.vmap(torch.func.grad(one))(x, t).shape)",
    ),
    "half types": (
        "15.0, as the mean of each",
        "",
        "x = torch.tensor([[-15.0, 0.0]], dtype=torch.float16).repeat(80_000, 1)\n"
        "t = torch.zeros(80_000, dtype=torch.long)\nprint({none}.mean())\nprint({mean})",
    ),
}
GAMMA = {"finite gradient, gamma 0.5": 0.5, "digits of the gradient": 1.0}  # others: 2
# Where a loss needs lines of its own, and more that was found beside the checks.
OWN: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("segmentation_models_pytorch.losses:FocalLoss", "reductions"): (
        (
            "torch.Size([3, 4]), that of the logits",
            "x, t = torch.zeros(3, 4), torch.zeros(3, 4)\nprint({none}.shape)",
        ),
        (
            "torch.Size([3, 4]) and 2.0794",
            "x, t = torch.zeros(3, 4), torch.zeros(3, 4)\n"
            'print(FocalLoss("multilabel", reduction="none")(x, t).shape)\n'
            'print(FocalLoss("multilabel", reduction="sum")(x, t))',
        ),
    ),
    ("imbalanced_losses:SoftmaxFocalLoss", "shape of weights"): (
        (
            "an error: two weights for three classes",
            "x, t = torch.zeros(2, 3), torch.tensor([1, 2])\n"
            'print(SoftmaxFocalLoss(alpha=[1.0, 2.0], reduction="none")(x, t))',
        ),
    ),
}
ABOUT = """\
{machine}. What is right, in full:

{checks}

`-` where a check does not apply: the loss has no such option, or refuses soft targets. A loss
whose documentation promises labels of 0 and 1 alone breaks no promise by failing *soft targets* or
*range of targets*; torch's own `binary_cross_entropy_with_logits` refuses no target either. What
fails *digits of the gradient* does so where the gradient is hardly worth having. kornia's *vmap*
fails in torch's `one_hot`, in the gradient of the unreduced or weighted loss alone.

{table}

### Reproductions

Each was run when this page was made: its first line says what is right, its last what it printed.

{reproductions}
"""


def reproductions(judged: Judged, failed: list[Result]) -> list[str]:
    """Returns what a loss failed as blocks of code with what they print.

    Raises:
        LookupError: there is no code for a check that failed.
    """
    calls = SOFTMAXES if judged.is_softmax else SIGMOIDS
    call, blocks = calls[judged.name], []
    for result in failed:
        right, *lines = LINES.get(result.check, ("", "", ""))
        common = ((right, lines[judged.is_softmax]),)
        for meant, text in OWN.get((judged.name, result.check), common):
            if not text:
                raise LookupError(f"no reproduction of {result.check} for {judged.name}")
            filled = {
                reduction: call.text.format(gamma=GAMMA.get(result.check, 2.0), reduction=reduction)
                for reduction in ("none", "sum", "mean")
            }
            code = f"import torch\n{call.imports}\n\n{text.format(**filled)}"
            printed = "\n".join(f"# {line}" for line in _output(code).splitlines())
            blocks.append(f"```python\n# {result.check}; right: {meant}\n{code}\n{printed}\n```")
    return blocks


def _output(code: str) -> str:
    """Returns what code prints, or its error."""
    with contextlib.redirect_stdout(io.StringIO()) as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exec(compile(code, "reproduction", "exec"), {})
        except Exception as error:
            print(in_words(error))
    return out.getvalue().strip()


def main() -> None:
    """Judges all, and replaces what stands between the marks of the page."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler talks
    rows = []
    for name in (*SIGMOIDS, *SOFTMAXES):
        print(name, file=sys.stderr)
        judged = judged_of(name)
        rows.append((judged, results_of(judged, CHECKS)))
    parts = []
    for judged, results in rows:
        blocks = reproductions(judged, [one for one in results if one.verdict == "fails"])
        if blocks:
            parts += [f"#### {judged.version}, {judged.form}", *blocks]
    made = ABOUT.format(
        machine=f"torch {torch.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()} CPU",
        checks=check_list(CHECKS, markdown=True),
        table=as_markdown(rows),
        reproductions="\n\n".join(parts),
    )
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}")


if __name__ == "__main__":
    main()
