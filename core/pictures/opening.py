"""Pictures for a model: checked before they are decoded, upright, in RGB and without transparency.

The number of pixels is read from the header, so that a small file with an enormous picture (a decompression bomb) is
refused without using memory. Only formats whose decoders are part of Pillow are opened; others would start further
programs. Pillow is imported when it is needed.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from core.errors import BadInput, BitwrightError, CorruptFile, MissingDependency, OutOfMemory, no_memory
from core.pictures.sources import name_of, read_picture

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS: Final = 64_000_000
"""Largest picture that is decoded; Pillow warns from 89 million pixels on."""
MAX_EDGE: Final = 65_500
"""Longest edge, as in JPEG files."""
FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "PPM", "ICO")
"""Formats of Pillow that are opened, as far as its build has them. MPO files of phones are opened as JPEG."""
FORMAT_NAMES: Final = "PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF"
_HINT: Final = f"Use a picture in the format {FORMAT_NAMES}."
_DAMAGED: Final = "Use another copy of the picture."
_TIFF_ORIENTATION: Final = 274


@dataclass(frozen=True)
class PictureFacts:
    """Properties of a picture that its header tells: size in pixels as it is shown, format, and bytes of the file."""

    width: int
    height: int
    format: str
    nbytes: int


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        image: Pillow image in RGB.
        digest: hash of the file, by which equal pictures are recognised.
    """

    image: Image
    digest: str


def missing_pillow() -> MissingDependency | None:
    """Return an error if Pillow is not installed."""
    if find_spec("PIL") is not None:
        return None
    return MissingDependency("Pictures need the library Pillow.", "Install it with: python -m pip install pillow")


def check_picture(source: str) -> PictureFacts:
    """Read the header of a picture, without decoding it.

    Args:
        source: path of a file, or a `data:` URI.

    Raises:
        BadInput: there is no such file, it is too large, or not a picture in a supported format.
        CorruptFile: the header is damaged.
        MissingDependency: Pillow is not installed.
    """
    data = read_picture(source)
    with _opened(source, data) as image:
        width, height = image.size
        if _orientation(image, decoded=False) >= 5:  # turned by 90 degrees
            width, height = height, width
        return PictureFacts(width, height, str(image.format), len(data))


def open_picture(source: str) -> Picture:
    """Decode a picture: its first frame, upright, in RGB, on white where it is transparent.

    Raises:
        BadInput, CorruptFile, MissingDependency: as in `check_picture`, or the data of the picture is incomplete.
        OutOfMemory: there is too little memory to decode it.
    """
    data = read_picture(source)
    with _opened(source, data) as image:
        return Picture(_in_rgb(_upright(_loaded(image))), hashlib.sha256(data).hexdigest())


def digest_of(source: str) -> str:
    """Return the digest of a picture without decoding it; raises `BadInput` as `read_picture`."""
    return hashlib.sha256(read_picture(source)).hexdigest()


def thumbnail(source: str, edge: int) -> bytes:
    """Return a picture of at most `edge` x `edge` pixels as a PNG file; raises as `open_picture`."""
    image = open_picture(source).image
    image.thumbnail((max(1, edge), max(1, edge)))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@contextmanager
def _opened(source: str, data: bytes) -> Iterator[Image]:
    """Open a picture whose size is acceptable; errors of Pillow in the context become errors for the user."""
    if problem := missing_pillow():
        raise problem
    from PIL import Image, UnidentifiedImageError

    name = name_of(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata and large pictures, which are checked below
            Image.init()
            with Image.open(io.BytesIO(data), formats=[kind for kind in FORMATS if kind in Image.OPEN]) as image:
                _check_size(name, *image.size)
                yield image
    except BitwrightError:
        raise
    except UnidentifiedImageError as error:
        raise BadInput(f"{name} is not a picture that can be opened{_known_as(data)}.", _HINT) from error
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(name) from error
    except Exception as error:  # decoders raise many kinds for damaged files
        if no_memory(error):
            raise OutOfMemory(f"There is too little memory to decode {name}.", "Use a smaller picture.") from error
        reason = " ".join(str(error).split())[:160].rstrip(".")
        raise CorruptFile(f"{name} is damaged{': ' + reason if reason else ''}.", _DAMAGED) from error


def _check_size(name: str, width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise CorruptFile(f"{name} is damaged: it has no pixels.", _DAMAGED)
    if width * height > MAX_PIXELS or max(width, height) > MAX_EDGE:
        raise _too_many_pixels(name, f" ({width} x {height})")


def _too_many_pixels(name: str, size: str = "") -> BadInput:
    return BadInput(
        f"{name} has too many pixels{size}; the limit is {MAX_PIXELS // 1_000_000} million.", "Use a smaller picture."
    )


def _known_as(data: bytes) -> str:
    """Return the kind of some files that are often taken for pictures, as the end of a sentence; or ""."""
    start = data[:512].lstrip().lower()
    if b"ftyphei" in data[:32] or b"ftypmif1" in data[:32]:
        return ": it is a HEIC file"
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return ": it is an SVG drawing"
    return ": it is a PDF document" if start.startswith(b"%pdf") else ""


def _orientation(image: Image, *, decoded: bool = True) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is none or the EXIF data are damaged.

    PNG files can have EXIF data after the picture, which are only found if it is `decoded`.
    """
    from PIL.Image import Image as Base

    try:
        exif = image.getexif() if decoded else Base.getexif(image)
        value = exif.get(_TIFF_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - the parser raises many kinds, and the picture itself may be intact
        return 1
    return value if type(value) is int and 1 <= value <= 8 else 1


def _loaded(image: Image) -> Image:
    """Decode the first frame. The size is checked again, because some formats know it only then."""
    image.load()
    _check_size("The picture", *image.size)
    return image


def _upright(image: Image) -> Image:
    """Apply the EXIF orientation."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    turn = turns.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _in_rgb(image: Image) -> Image:
    """Convert to RGB: transparent pixels onto white, and more than 8 bits scaled rather than clipped."""
    from PIL import Image as Pillow

    if image.mode.startswith("I") or image.mode == "F":
        return Pillow.fromarray(_in_8_bits(image)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    ground = Pillow.new("RGB", layer.size, "white")
    ground.paste(layer, mask=layer.getchannel("A"))
    return ground


def _in_8_bits(image: Image) -> Any:
    """Return grey values of 16 bits, 32 bits or floating point as an array of 8 bits.

    16 bits are scaled by their range, and so are values in 32 bits that fit into 16, since Pillow can read 16-bit files
    as such. Other values are scaled by the largest one.
    """
    import numpy as np

    values = np.nan_to_num(np.asarray(image).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(values.max())
    if image.mode == "F":
        full = next((limit for limit in (1.0, 255.0, 65535.0) if largest <= limit), largest)
    else:
        full = max(65535.0, largest)
    return np.clip(values * (255.0 / full) + 0.5, 0, 255).astype(np.uint8)
