"""The colours of classes, in a fixed order that is documented in docs/predict.md.

The first seven are those of Okabe and Ito (2008), told apart with any colour vision, without their
black. Each of the others is the colour farthest from grey, black, white and all before it, by
CIEDE2000; the nearest two of the 24 are 18 apart, neighbours in the order 26.
"""

Color = tuple[int, int, int]

# In BGR.
PALETTE: tuple[Color, ...] = (
    (0, 159, 230),  # orange
    (233, 180, 86),  # sky blue
    (115, 158, 0),  # green
    (66, 228, 240),  # yellow
    (178, 114, 0),  # blue
    (0, 94, 213),  # vermilion
    (167, 121, 204),  # purple
    (180, 0, 120),  # violet
    (0, 90, 90),  # olive
    (45, 0, 165),  # crimson
    (240, 255, 150),  # pale cyan
    (75, 240, 0),  # bright green
    (165, 180, 255),  # salmon
    (255, 195, 210),  # lavender
    (0, 150, 135),  # moss
    (255, 105, 150),  # slate violet
    (60, 90, 0),  # dark green
    (0, 60, 120),  # brown
    (90, 75, 255),  # coral
    (135, 15, 195),  # magenta
    (75, 120, 150),  # tan
    (120, 75, 75),  # slate
    (180, 240, 210),  # pale green
    (150, 135, 0),  # teal
)


def color_of(label: int) -> Color:
    """Returns the BGR colour of a class; the colours repeat after the last one."""
    return PALETTE[label % len(PALETTE)]


def ink_on(color: Color) -> Color:
    """Returns black or white, whichever is easier to read on a colour."""
    blue, green, red = color
    dark = 0.114 * blue + 0.587 * green + 0.299 * red > 120
    return (0, 0, 0) if dark else (255, 255, 255)
