"""What torch says of images that are too small or too few for a network, as errors of fldet."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from fldet.errors import UsageError

# In torch's messages: a norm has one value; a layer has no room. Each with the size that it got.
_ONE_VALUE = re.compile(r"Expected more than 1 (?:value per channel|spatial element) when training")
_NO_ROOM = re.compile(
    r"Kernel size can't be greater than actual input size|Output size is too small"
    r"|Padding size should be less than the corresponding input dimension"
)
_SIZE = re.compile(r"\[([\d, ]+)\]|\((\d+(?: ?x ?\d+)+)\)")


@contextmanager
def explained_step_errors() -> Iterator[None]:
    """Raises a ``UsageError`` where a step fails because images are too small or too few.

    Errors of other kinds pass as they are.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        text = str(error)
        if _ONE_VALUE.search(text):
            raise UsageError(
                f"a norm of the network learns from one value of each channel, a map{_size(text)}",
                expected="two values or more",
                hint="a larger batch (--batch-size 2), larger images, or batch norms that are "
                "frozen (norm_eval=True)",
            ) from error
        if _NO_ROOM.search(text):
            raise UsageError(
                f"the images are too small for the network: a layer cannot take a map{_size(text)}",
                expected="larger images",
                hint="choose a larger size: --shape, or Resize in the pipeline of the config",
            ) from error
        raise


def _size(text: str) -> str:
    """Returns `` of 2x8x1x1`` where a message has a size in brackets, else ''."""
    found = _SIZE.search(text)
    return f" of {'x'.join(re.findall(r'[0-9]+', found[0]))}" if found else ""
