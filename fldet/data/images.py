"""Image files without their pixels."""

from pathlib import Path

from fldet.errors import DataError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".JPG", ".JPEG", ".PNG")

_ORIENTATION = 0x0112  # the EXIF tag; from 5 on the picture lies on its side


def image_size(path: Path) -> tuple[int, int]:
    """Returns (width, height) in pixels from the head of the file, upright as its EXIF data say.

    Raises:
        DataError: there is no such file, or it is no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
            return (image.height, image.width) if turned else (image.width, image.height)
    except UnidentifiedImageError:
        raise DataError(f"{path} is not an image") from None
    except OSError as error:
        raise DataError(f"cannot read the image {path}: {error.strerror or error}") from None
