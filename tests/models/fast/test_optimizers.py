import subprocess
import sys
from pathlib import Path

import fldet

CODE = """
import sys

import torch
from torch.optim import SGD, Adam, AdamW

from fldet.models.fast.optimizers import leave_compiler_out


def train(kind, **options):
    layer = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(layer.weight, 0.25)
    torch.nn.init.zeros_(layer.bias)
    optimizer = kind(layer.parameters(), lr=0.1, **options)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.arange(6.0).reshape(2, 3)).square().sum().backward()
        optimizer.step()
        assert torch.is_grad_enabled()
    optimizer.load_state_dict(optimizer.state_dict())
    return [*layer.parameters()]


def train_all():
    return [*train(SGD, momentum=0.9), *train(Adam), *train(AdamW, weight_decay=0.1)]


leave_compiler_out()
alone = train_all()
print("torch._dynamo" in sys.modules)
import torch._dynamo

torch._dynamo.graph_break = lambda: print("torch's own step")
print(all(map(torch.equal, alone, train_all())))
"""


def test_steps_are_torchs_own_without_its_compiler_and_with_it():
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        cwd=Path(fldet.__file__).parents[1],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *others, last = done.stdout.splitlines()
    assert (first, last) == ("False", "True")
    assert others == ["torch's own step"] * 2 * 3 * 3  # before and after each of nine steps
