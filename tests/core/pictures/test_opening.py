"""Opening of pictures: what a model gets of good ones, and one sentence for each kind of bad one."""

from __future__ import annotations

import contextlib
import os
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from core.errors import BadInput, BitwrightError, CorruptFile, MissingDependency
from core.pictures import opening, sources
from core.pictures.opening import MAX_PIXELS, check_picture, digest_of, open_picture, thumbnail
from tests.core.pictures.made_pictures import data_uri, encoded, halves, png_bomb, png_chunk

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
PNG = encoded(halves(40, 40))
JPEG = encoded(halves(64, 64), "JPEG")
GIF = encoded(halves(), "GIF")
PALETTE_WITHOUT_COLOURS = (
    b"\x89PNG\r\n\x1a\n"
    + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 3, 0, 0, 0))
    + png_chunk(b"IDAT", zlib.compress(bytes(20)))
    + png_chunk(b"IEND", b"")
)
BAD: dict[str, tuple[bytes, type[BitwrightError], str]] = {
    "nothing": (b"", BadInput, "is empty"),
    "text": (b"This is a text file.\n", BadInput, "not a picture"),
    "one byte": (b"\x89", BadInput, "not a picture"),
    "start of a png": (PNG[:8], BadInput, "not a picture|damaged"),
    "html": (b"<!doctype html><html></html>", BadInput, "not a picture"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", BadInput, "SVG drawing"),
    "xml with svg": (b"<?xml version='1.0'?>\n<svg/>", BadInput, "SVG drawing"),
    "pdf": (b"%PDF-1.7\n", BadInput, "PDF document"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", BadInput, "HEIC"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", BadInput, "not a picture"),
    "zip": (b"PK\x03\x04" + bytes(40), BadInput, "not a picture"),
    "truncated png": (PNG[:-30], CorruptFile, "damaged"),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], CorruptFile, "damaged"),
    "truncated gif": (GIF[:-8], CorruptFile, "damaged"),
    "truncated bmp": (encoded(halves(), "BMP")[:-9], CorruptFile, "damaged"),
    "truncated webp": (encoded(halves(64, 64), "WEBP")[:-20], BitwrightError, "damaged|not a picture"),
    "truncated tiff": (encoded(halves(), "TIFF")[:-40], BitwrightError, "damaged|not a picture"),
    "png with a wrong checksum": (PNG[:16] + b"\0\0\0\x29" + PNG[20:], BitwrightError, "damaged|not a picture"),
    "png of no pixels": (png_bomb(0, 0), BitwrightError, "damaged|not a picture"),
    "png without a palette": (PALETTE_WITHOUT_COLOURS, BitwrightError, "damaged|not a picture"),
    "bomb": (png_bomb(60_000, 60_000), BadInput, "too many pixels"),
    "small bomb": (png_bomb(10_000, 6_401), BadInput, "too many pixels"),
    "long bomb": (png_bomb(1, 1 << 20), BadInput, "too many pixels"),
    "largest bomb": (png_bomb((1 << 31) - 1, (1 << 31) - 1), BitwrightError, "too many pixels"),
    "gif bomb": (GIF[:6] + struct.pack("<HH", 65_000, 65_000) + GIF[10:], BadInput, "too many pixels"),
    "bmp bomb": (
        b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, *[0] * 6),
        BadInput,
        "too many pixels",
    ),
    "ppm bomb": (b"P6 60000 60000 255\n", BadInput, "too many pixels"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_picture_is_one_sentence_with_a_hint(name: str, tmp_path: Path) -> None:
    data, kind, words = BAD[name]
    path = tmp_path / "holiday.png"
    path.write_bytes(data)
    with pytest.raises(kind, match=words) as caught:
        open_picture(str(path))
    assert caught.value.message.startswith("holiday.png ")
    assert caught.value.message.count(".") - caught.value.message.count("holiday.png") <= 1
    assert caught.value.hint


@pytest.mark.parametrize("name", [name for name in BAD if "bomb" in name])
def test_bomb_is_never_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    tracemalloc.start()
    try:
        with pytest.raises(BitwrightError, match="too many pixels"):
            open_picture(data_uri(BAD[name][0]))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [name for name in BAD if "truncated" not in name])
def test_header_alone_shows_most_problems(name: str, tmp_path: Path) -> None:
    path = tmp_path / "holiday.png"
    path.write_bytes(BAD[name][0])
    if name != "png without a palette":
        with pytest.raises(BitwrightError):
            check_picture(str(path))


def test_the_header_is_read_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    facts = check_picture(data_uri(PNG))
    assert (facts.width, facts.height, facts.format, facts.nbytes) == (40, 40, "PNG", len(PNG))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([PNG, JPEG, GIF, encoded(halves(), "TIFF"), encoded(halves(), "WEBP")]), st.data())
def test_damaged_files_give_a_picture_or_an_error_for_the_user(data: bytes, draw: st.DataObject) -> None:
    changed = bytearray(data[: draw.draw(st.integers(1, len(data)))])
    for _ in range(draw.draw(st.integers(0, 4))):
        changed[draw.draw(st.integers(0, len(changed) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(BitwrightError):
        assert open_picture(data_uri(bytes(changed))).image.mode == "RGB"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
def test_formats(kind: str) -> None:
    image = open_picture(data_uri(encoded(halves(64, 32), kind))).image
    assert (image.mode, image.size) == ("RGB", (64, 32))
    assert np.abs(np.asarray(image)[16, (8, 56)].astype(int) - [RED, BLUE]).max() < 20


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 1), (20_000, 1), (1, 20_000), (3, 500)])
def test_sizes(size: tuple[int, int]) -> None:
    image = open_picture(data_uri(encoded(Image.new("RGB", size, "red")))).image
    assert (image.size, image.getpixel((0, 0))) == (size, RED)


def test_transparent_pixels_are_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 255, 255))
    found = open_picture(data_uri(encoded(image))).image
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [WHITE, BLUE]


def test_transparent_colour_of_a_palette_is_white() -> None:
    image = halves(4, 1).quantize(2)
    first = image.getpixel((0, 0))
    found = open_picture(data_uri(encoded(image, transparency=first))).image
    assert [found.getpixel((x, 0)) for x in (0, 3)] == [WHITE, BLUE]


def test_half_transparent_grey_is_blended_with_white() -> None:
    found = open_picture(data_uri(encoded(Image.new("LA", (1, 1), (0, 128))))).image
    assert found.getpixel((0, 0)) == (127, 127, 127)


def test_cmyk_is_converted() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    found = open_picture(data_uri(encoded(image, "TIFF"))).image
    assert np.abs(np.array(found.getpixel((4, 4))) - RED).max() < 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 255, 256, 32768, 65535]], np.uint16))
    found = np.asarray(open_picture(data_uri(encoded(image, kind))).image)[0, :, 0]
    assert found.tolist() == [0, 1, 1, 128, 255]


@pytest.mark.parametrize(("largest", "expected"), [(1.0, 255), (255.0, 255), (65535.0, 255), (1e9, 255)])
def test_floating_point_grey_is_scaled(largest: float, expected: int) -> None:
    image = Image.fromarray(np.array([[0.0, largest, np.nan, -5.0]], np.float32))
    found = np.asarray(open_picture(data_uri(encoded(image, "TIFF"))).image)[0, :, 0]
    assert found.tolist() == [0, expected, 0, 0]


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_picture(data_uri(data)).image.getpixel((0, 0)) == RED


UPRIGHT = np.array([[0, 90], [180, 250], [60, 120]], np.uint8)


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, UPRIGHT),
        (2, UPRIGHT[:, ::-1]),
        (3, UPRIGHT[::-1, ::-1]),
        (4, UPRIGHT[::-1]),
        (5, UPRIGHT.T),
        (6, UPRIGHT.T[::-1]),
        (7, UPRIGHT.T[::-1, ::-1]),
        (8, UPRIGHT.T[:, ::-1]),
        (9, UPRIGHT),
    ],
)
def test_exif_orientation_is_applied(orientation: int, stored: Any) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    source = data_uri(encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif))
    assert np.asarray(open_picture(source).image)[..., 0].tolist() == UPRIGHT.tolist()
    facts = check_picture(source)
    assert (facts.width, facts.height) == (2, 3)


def test_damaged_exif_does_not_prevent_opening() -> None:
    source = data_uri(encoded(halves(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage"))
    assert open_picture(source).image.size == (6, 4)


def test_digest_depends_on_the_file() -> None:
    assert open_picture(data_uri(PNG)).digest == digest_of(data_uri(PNG, "")) != digest_of(data_uri(JPEG))


def test_thumbnail_is_a_small_png() -> None:
    data = thumbnail(data_uri(encoded(halves(300, 100))), 60)
    facts = check_picture(data_uri(data))
    assert (facts.width, facts.height, facts.format) == (60, 20, "PNG")


def test_small_picture_is_not_enlarged_for_its_thumbnail() -> None:
    assert check_picture(data_uri(thumbnail(data_uri(encoded(halves())), 60))).width == 6


def test_limit_is_below_that_at_which_pillow_warns() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert MAX_PIXELS < Image.MAX_IMAGE_PIXELS


def test_missing_pillow_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="Pillow") as caught:
        open_picture(data_uri(PNG))
    assert "pip install pillow" in caught.value.hint


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder"):
        open_picture(str(tmp_path))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"There is no picture .*cat\.png"):
        open_picture(str(tmp_path / "cat.png"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadInput, match="not a file"):
        open_picture(str(tmp_path / "pipe.png"))


@pytest.mark.skipif(os.name != "posix", reason="needs /dev/zero")
def test_device_is_refused() -> None:
    with pytest.raises(BadInput, match="not a file"):
        open_picture("/dev/zero")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(PNG)
    path.chmod(0)
    with pytest.raises(BadInput, match="cannot be read"):
        open_picture(str(path))


@pytest.mark.parametrize("source", ["", "a\0b.png", "x" * 5000, "\ud800.png"])
def test_impossible_paths_are_refused(source: str) -> None:
    with pytest.raises(BadInput):
        open_picture(source)


@pytest.mark.parametrize("source", ["http://host/cat.png", "HTTPS://host/cat.png", "file:///cat.png", "ftp://a/b"])
def test_addresses_are_not_downloaded(source: str) -> None:
    with pytest.raises(BadInput, match="not downloaded"):
        open_picture(source)


def test_large_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as stream:
        stream.truncate(sources.MAX_BYTES + 1)
    monkeypatch.setattr(sources, "_decoded", None)
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match="more than 64 MB"):
            open_picture(str(path))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("data:image/png;base64,%%%%", "damaged"),
        ("data:image/png;base64,iVBO Rw0K", "damaged"),
        ("data:image/png;base64,iVBORw0", "damaged"),
        ("data:image/png;base64,ä", "damaged"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png,rawtext", "not encoded in base64"),
        ("data:image/png;base64", "not encoded in base64"),
        ("data:text/html;base64,PGh0bWw+", "contains text/html"),
        ("data:", "not encoded in base64"),
    ],
)
def test_bad_data_uri_is_refused(uri: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        open_picture(uri)


def test_large_data_uri_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_BYTES", 3000)
    monkeypatch.setattr(sources.base64, "b64decode", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(BadInput, match="more than"):
        open_picture(data_uri(bytes(3002)))
