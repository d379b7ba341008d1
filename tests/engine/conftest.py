"""Fixtures of the tests of whole runs."""

import pytest

from fldet.engine import train as engine


@pytest.fixture
def with_hook(monkeypatch):
    """Registers hooks in the runs that follow."""
    build = engine.build_runner

    def use(*hooks):
        def build_with_hooks(*args):
            runner = build(*args)
            for hook in hooks:
                runner.register_hook(hook)
            return runner

        monkeypatch.setattr(engine, "build_runner", build_with_hooks)

    return use
