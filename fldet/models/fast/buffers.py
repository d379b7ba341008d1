"""Buffers that a forward pass changes, kept and put back."""

from torch import Tensor, nn


def changing_modules(model: nn.Module) -> list[nn.Module]:
    """Returns the modules whose buffers a forward pass in training may change."""
    return [
        module
        for module in model.modules()
        if module.training and any(True for _ in module.buffers(recurse=False))
    ]


def copy_buffers(modules: list[nn.Module]) -> list[dict[str, Tensor]]:
    """Returns copies of the buffers of each module, without those of its children."""
    return [
        {name: value.clone() for name, value in module.named_buffers(recurse=False)}
        for module in modules
    ]


def restore_buffers(modules: list[nn.Module], saved: list[dict[str, Tensor]]) -> None:
    """Puts back what ``copy_buffers`` returned."""
    for module, buffers in zip(modules, saved, strict=True):
        for name, value in buffers.items():
            getattr(module, name).copy_(value)
