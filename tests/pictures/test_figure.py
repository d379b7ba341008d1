"""What figures have in common."""

import pytest

from fldet.pictures.figure import figure, small_print


@pytest.mark.parametrize("width", [4, 9, 14])
def test_small_print_stays_within_the_figure(width):
    text = "Best precision at each recall or above; WIDE LETTERS AND MANY MORE WORDS. " * 5
    with figure(width, 4) as drawn:
        drawn.subplots()
        small_print(drawn, f"short\n{text}", size=11)
        drawn.canvas.draw()
        box = drawn._supxlabel.get_window_extent()
        assert box.x0 >= 0
        assert 0.6 * drawn.bbox.width < box.x1 <= drawn.bbox.width
        assert drawn._supxlabel.get_text().startswith("short\nBest")
