"""``fldet data``: what a data set is, and what is wrong with it, before anything is trained."""

from fldet.cli.data import check, convert, inspect, split
from fldet.cli.group import command_group

app = command_group(
    "Look at, check, convert and divide data sets.",
    *(inspect.inspect, check.check, convert.convert, split.split),
)
