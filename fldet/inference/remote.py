"""Images at addresses (http, https), with bounds of time and size."""

import time
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import numpy.typing as npt

from fldet import __version__
from fldet.data.image_files import decode, header_of
from fldet.errors import DataError
from fldet.files import MIB

SCHEMES = ("http://", "https://")
MOST = 64 * MIB
_SECONDS_WITHOUT_ANSWER = 10.0
_SECONDS = 60.0  # for all of an image
_BLOCK = 1 << 16


def is_address(source: str) -> bool:
    """Returns whether a source is to be fetched."""
    return source.lower().startswith(SCHEMES)


def fetch_image(address: str) -> npt.NDArray[np.uint8]:
    """Returns the image at an address as (H, W, 3) uint8 in BGR order.

    Raises:
        DataError: no answer, an error, too slow, too large, or no image; it names the address.
    """
    data = _fetch(address)
    image = decode(data)
    if image is None:
        reason = header_of(data).fault or "not an image that OpenCV can read"
        raise DataError(
            f"{address}: {reason}",
            expected="the address of an image file; a page or a video has to be downloaded first",
        )
    return image


def _fetch(address: str) -> bytes:
    end, data = time.monotonic() + _SECONDS, bytearray()
    try:
        request = Request(address, headers={"User-Agent": f"fldet/{__version__}"})
        with urlopen(request, timeout=_SECONDS_WITHOUT_ANSWER) as answer:
            stated = str(answer.headers.get("Content-Length"))
            while block := answer.read1(_BLOCK):
                data += block
                if len(data) > MOST:
                    raise DataError(f"{address} has more than {MOST // MIB} MiB")
                if time.monotonic() > end:
                    raise DataError(f"{address} took more than {_SECONDS:.0f} s")
        if stated.isdecimal() and len(data) < int(stated):
            raise DataError(f"{address} ended after {len(data)} of {stated} bytes")
    except HTTPError as error:
        error.close()
        raise DataError(f"{address}: the server says {error.code} {error.reason}") from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise DataError(f"cannot fetch {address}: {getattr(error, 'reason', error)}") from error
    return bytes(data)
