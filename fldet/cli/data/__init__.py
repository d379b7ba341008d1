"""``fldet data``: what a data set is, and what is wrong with it, before anything is trained."""

from fldet.cli.data import check, convert, inspect
from fldet.cli.group import command_group

app = command_group(
    "Look at, check and convert data sets.", inspect.inspect, check.check, convert.convert
)
