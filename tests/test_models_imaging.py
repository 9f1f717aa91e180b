"""The only way in for an image: formats, liberties taken, refusals."""

import hashlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from models.errors import BadImageError
from models.imaging import read_image


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width: int = 32, height: int = 24) -> Image.Image:
    values = np.zeros((height, width, 3), np.uint8)
    values[..., 0] = np.arange(width) * 7
    values[..., 1] = np.arange(height)[:, None] * 9
    return Image.fromarray(values)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIF"])
def test_every_promised_format_is_read(kind):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    source = read_image(encoded(gradient(), kind), "x")
    assert source.format == kind
    assert source.rgb.mode == "RGB"
    assert source.size_wh == (32, 24)
    assert np.abs(np.asarray(source.rgb).astype(int) - np.asarray(gradient()).astype(int)).mean() < 12


def test_hash_is_of_the_original_bytes(tmp_path):
    data = encoded(gradient(), "JPEG")
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    source = read_image(path)
    assert source.sha256 == hashlib.sha256(data).hexdigest()
    assert (source.name, source.original) == ("photo.jpg", data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_exactly(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.asarray(gradient())
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(stored, 1),
    }
    source = read_image(encoded(gradient(), "PNG", exif=exif))
    assert np.array_equal(np.asarray(source.rgb), upright[orientation])
    assert any("upright" in note for note in source.notes) == (orientation != 1)


def test_exif_summary_is_short_and_printable():
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0131] = "Maker\x00\n", "Model <b>", "S" * 999
    gps = exif.get_ifd(0x8825)
    gps.update({1: "N", 2: (50.0, 30.0, 0.0), 3: "W", 4: (19.0, 0.0, 36.0)})
    source = read_image(encoded(gradient(), "JPEG", exif=exif))
    assert source.exif["Make"] == "Maker"
    assert source.exif["Model"] == "Model <b>"  # escaping is the page's work
    assert len(source.exif["Software"]) == 200
    assert source.exif["GPS"] == "50.50000, -19.01000"


def test_damaged_exif_is_a_note_not_a_refusal():
    data = encoded(gradient(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage")
    assert read_image(data).size_wh == (32, 24)


def test_first_frame_is_used_and_said_so():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        source = read_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
        assert source.rgb.getpixel((3, 3)) == (255, 0, 0)
        assert "first of 3 frames" in source.notes[0]


def test_sixteen_bit_grey_keeps_its_scale():
    values = np.full((16, 16), 257 * 100, np.uint16)
    values[0, 0] = 65535
    source = read_image(encoded(Image.fromarray(values), "PNG"))
    assert source.rgb.getpixel((5, 5)) == (100, 100, 100)
    assert source.rgb.getpixel((0, 0)) == (255, 255, 255)
    assert "reduced from 16 bits to 8" in source.notes


def test_float_tiff_is_stretched_and_said_so():
    values = np.linspace(-1.0, 3.0, 256, dtype=np.float32).reshape(16, 16)
    source = read_image(encoded(Image.fromarray(values), "TIFF"))
    assert np.asarray(source.rgb)[..., 0].min() == 0
    assert np.asarray(source.rgb)[..., 0].max() == 255
    assert "stretched" in source.notes[0]


def test_cmyk_becomes_rgb():
    source = read_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100))
    red, green, blue = source.rgb.getpixel((4, 4))
    assert red > 200 > 60 > max(green, blue)


def test_alpha_is_laid_on_white():
    half = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    half.putpixel((2, 2), (10, 20, 30, 255))
    source = read_image(encoded(half, "PNG"))
    assert source.rgb.getpixel((0, 0)) == (255, 255, 255)
    assert source.rgb.getpixel((2, 2)) == (10, 20, 30)
    assert "white" in source.notes[0]
    indexed = Image.new("P", (16, 16), 0)
    indexed.putpalette([9, 9, 9, 200, 100, 50])
    indexed.putpixel((1, 1), 1)
    shown = read_image(encoded(indexed, "PNG", transparency=0)).rgb
    assert (shown.getpixel((0, 0)), shown.getpixel((1, 1))) == ((255, 255, 255), (200, 100, 50))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size without holding its pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"nothing")))
    packed = (struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def bad_inputs():
    whole = encoded(gradient(300, 200), "JPEG")
    yield "zero bytes", b"", "empty"
    yield "text named .jpg", b"hello, I am text" * 40, "not an image"
    yield "truncated jpeg", whole[: len(whole) // 2], "damaged"
    yield "truncated png", encoded(gradient(300, 200))[:600], "damaged"
    yield "truncated webp", encoded(gradient(300, 200), "WEBP")[:200], "damaged"
    yield "one pixel", encoded(Image.new("RGB", (1, 1))), "too small"
    yield "thread", encoded(Image.new("RGB", (60_000, 2))), "too small"
    yield "ribbon", encoded(Image.new("RGB", (4_000, 10))), "too narrow"
    yield "bomb", png_header(50_000, 50_000), "megapixels"
    yield "large claim", png_header(12_000, 11_000), "megapixels"
    yield "postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\nshowpage\n", "not an image"


@pytest.mark.parametrize(("data", "words"), [pytest.param(d, w, id=n) for n, d, w in bad_inputs()])
def test_bad_bytes_get_one_clear_line(data, words):
    with pytest.raises(BadImageError, match=words) as caught:
        read_image(data, "evidence.jpg")
    assert str(caught.value).startswith("evidence.jpg: ")
    assert "\n" not in str(caught.value)


def test_a_library_that_lifts_pillows_limit_does_not_lift_ours(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(BadImageError, match="megapixels"):
        read_image(png_header(50_000, 50_000))


def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path):
    with pytest.raises(BadImageError, match="folder"):
        read_image(tmp_path)
    with pytest.raises(BadImageError, match="no such file"):
        read_image(tmp_path / "absent.png")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadImageError, match="regular"):
        read_image(tmp_path / "pipe")


def test_random_damage_never_gives_another_error():
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"):
        whole = bytearray(encoded(gradient(64, 48), kind))
        for _ in range(25):
            hurt = bytearray(whole)
            for index in rng.integers(0, len(whole), 12):
                hurt[index] = int(rng.integers(0, 256))
            try:
                assert read_image(bytes(hurt)).rgb.mode == "RGB"
            except BadImageError as error:
                assert "\n" not in str(error)
