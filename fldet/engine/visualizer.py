"""MMDetection's visualizer, whose figure is made when something is drawn.

In a training it passes numbers on to its backends and draws nothing; Matplotlib takes most of a
second.
"""

from types import SimpleNamespace
from typing import Any

from mmdet.visualization import DetLocalVisualizer

_OF_THE_FIGURE = ("fig_save_canvas", "fig_save", "ax_save", "dpi")


class _FigureLater(DetLocalVisualizer):  # type: ignore[misc]
    """A visualizer without a figure; the first look at one of its parts makes it."""

    def __init__(self, name: str = "visualizer", image: Any = None, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        for part in _OF_THE_FIGURE:
            del vars(self)[part]
        if image is not None:
            self.set_image(image)

    def _initialize_fig(self, fig_cfg: Any) -> tuple[Any, Any, Any]:
        del fig_cfg
        return None, SimpleNamespace(get_dpi=lambda: None), None

    def __getattr__(self, name: str) -> Any:
        if name not in _OF_THE_FIGURE:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        figure = super()._initialize_fig(self.fig_save_cfg)
        self.fig_save_canvas, self.fig_save, self.ax_save = figure
        self.dpi = self.fig_save.get_dpi()
        return vars(self)[name]


def figure_later(visualizer: Any) -> Any:
    """Returns the config of a visualizer; MMDetection's own gets its figure later."""
    if isinstance(visualizer, dict) and visualizer.get("type") in (
        *("DetLocalVisualizer", "mmdet.DetLocalVisualizer"),
    ):
        return {**visualizer, "type": _FigureLater}
    return visualizer
