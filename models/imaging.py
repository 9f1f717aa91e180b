"""The only way in for an image: bytes or a path become one checked RGB picture.

An analyst's evidence is the file, so the hash is taken of the original bytes; what the models see is the decoded,
upright, 8-bit RGB picture, and every liberty taken on the way there (first frame only, transparency laid on white)
is noted.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, TiffImagePlugin, UnidentifiedImageError

from models.errors import BadImageError

MAX_BYTES = 256 * 1024 * 1024
MAX_PIXELS = 120_000_000
MIN_SIDE_PX = 8
MAX_ASPECT = 50
# An explicit list keeps Pillow's rarely used decoders (EPS starts Ghostscript) away from strangers' files.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIF")
READABLE = "JPEG, PNG, WebP, BMP, GIF, TIFF, HEIC or AVIF"
EXIF_TAGS = ("Make", "Model", "Software", "DateTime", "Artist", "Copyright", "ImageDescription")
EXIF_SUB_TAGS = ("DateTimeOriginal", "LensModel", "BodySerialNumber", "UserComment", "ExposureTime", "ISOSpeedRatings")


@dataclass(frozen=True)
class SourceImage:
    """One decoded image and where it came from.

    Attributes:
        rgb: 8-bit RGB picture, upright after EXIF orientation. Never drawn on.
        sha256: hex SHA-256 of the original bytes.
        original: the bytes as given.
        name: file name, or what the caller called it.
        format: container format as Pillow names it, e.g. ``JPEG``.
        notes: what was changed or left out while decoding, in words.
        exif: selected EXIF entries as short printable text; ``GPS`` holds decimal degrees.
    """

    rgb: Image.Image = field(repr=False)
    sha256: str
    original: bytes = field(repr=False)
    name: str
    format: str
    notes: tuple[str, ...] = ()
    exif: dict[str, str] = field(default_factory=dict)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels of the upright picture."""
        return self.rgb.size


def read_image(source: str | Path | bytes, name: str = "") -> SourceImage:
    """Read, check and decode one image.

    Args:
        source: a path, or the file's bytes.
        name: what to call the image in messages; the file name when a path is given.

    Returns:
        The decoded image with its hash, notes and EXIF summary.

    Raises:
        BadImageError: if it is not a readable file, not an image, truncated, or of a size that no model can use.
    """
    if isinstance(source, bytes):
        data, name = source, name or "image"
    else:
        path = Path(source)
        name = name or path.name
        data = _read_bytes(path, name)
    if not data:
        raise BadImageError(f"{name}: the file is empty (0 bytes); give a {READABLE} file.")
    if len(data) > MAX_BYTES:
        raise BadImageError(f"{name}: {len(data) / 1e6:.0f} MB is more than the {MAX_BYTES / 1e6:.0f} MB allowed.")
    _register_heif()
    try:
        with Image.open(io.BytesIO(data), formats=_known_formats()) as opened:
            _check_size(opened.size, name)
            return _decode(opened, data, name)
    except BadImageError:
        raise
    except UnidentifiedImageError as error:
        raise BadImageError(f"{name}: not an image; its content is none of {READABLE}.") from error
    except Image.DecompressionBombError as error:
        raise BadImageError(f"{name}: claims more than the {MAX_PIXELS / 1e6:.0f} megapixels allowed.") from error
    except Exception as error:
        # Pillow's decoders raise nearly every built-in error on damaged files; all of them mean the same to a person.
        raise BadImageError(f"{name}: the image is damaged or cut off ({_one_line(error)}); get it again.") from error


def _read_bytes(path: Path, name: str) -> bytes:
    if path.is_dir():
        raise BadImageError(f"{name}: is a folder; give one image file.")
    if not path.exists():
        raise BadImageError(f"{name}: there is no such file ({path}).")
    if not path.is_file():
        raise BadImageError(f"{name}: is not a regular file.")  # a named pipe would block for ever
    if path.stat().st_size > MAX_BYTES:
        raise BadImageError(f"{name}: {path.stat().st_size / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadImageError(f"{name}: cannot be read ({error.strerror}).") from error


def _known_formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:  # optional: a platform without libheif still reads everything else
        return
    register_heif_opener()


def _check_size(size_wh: tuple[int, int], name: str) -> None:
    width, height = size_wh
    if min(size_wh) < MIN_SIDE_PX:
        raise BadImageError(f"{name}: {width}x{height} px is too small; both sides need at least {MIN_SIDE_PX} px.")
    if width * height > MAX_PIXELS:
        raise BadImageError(
            f"{name}: {width}x{height} px is more than the {MAX_PIXELS / 1e6:.0f} megapixels allowed; scale it down."
        )
    if max(size_wh) > MAX_ASPECT * min(size_wh):
        raise BadImageError(f"{name}: {width}x{height} px is too narrow to judge; cut out the part in question.")


def _decode(opened: Image.Image, data: bytes, name: str) -> SourceImage:
    notes: list[str] = []
    frames = getattr(opened, "n_frames", 1)
    container = opened.format or "unknown"
    opened.seek(0)
    opened.load()
    if frames > 1:
        notes.append(f"first of {frames} frames; the others were not examined")
    exif = _summarise_exif(opened, notes)
    rgb = _to_rgb(_turn_upright(opened, notes), notes)
    return SourceImage(
        rgb=rgb,
        sha256=hashlib.sha256(data).hexdigest(),
        original=data,
        name=name,
        format=container,
        notes=tuple(notes),
        exif=exif,
    )


def _turn_upright(image: Image.Image, notes: list[str]) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        upright = ImageOps.exif_transpose(image)
    except Exception as error:  # noqa: BLE001 - see _summarise_exif
        notes.append(f"EXIF orientation cannot be read ({_one_line(error)})")
        return image
    if orientation in range(2, 9):
        notes.append("turned upright as its EXIF orientation says")
    return upright


def _to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """Any Pillow mode to 8-bit RGB, telling what was lost."""
    if image.mode.startswith(("I", "F")):
        return _from_high_depth(image, notes)
    if image.mode == "CMYK":
        notes.append("converted from CMYK")
        return _from_cmyk(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        lowest = rgba.getchannel("A").getextrema()[0]
        if isinstance(lowest, int | float) and lowest < 255:
            notes.append("transparent parts laid on white")
        background = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(background, rgba).convert("RGB")
    # A fresh copy: the opened file must not stay alive behind the picture.
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _from_high_depth(image: Image.Image, notes: list[str]) -> Image.Image:
    """16-bit, 32-bit and float greyscale: by the full 16-bit range where the values fit it, else stretched."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise BadImageError("the picture holds values that are not finite; export it again as 8 or 16 bit.")
    low, high = float(values.min()), float(values.max())
    if not image.mode.startswith("F") and low >= 0 and high <= 65535:
        notes.append("reduced from 16 bits to 8")
        scaled = values / 257.0
    else:
        notes.append(f"values from {low:g} to {high:g} stretched to 8 bits")
        scaled = (values - low) * (255.0 / (high - low if high > low else 1.0))
    grey = Image.fromarray(np.round(scaled).astype(np.uint8))
    return grey.convert("RGB")


def _from_cmyk(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError):
            converted = None  # a broken profile: the plain conversion below is still a fair picture
        if converted is not None:
            return converted
    return image.convert("RGB")


def _summarise_exif(image: Image.Image, notes: list[str]) -> dict[str, str]:
    try:
        exif = image.getexif()
        sub = exif.get_ifd(ExifTags.IFD.Exif)
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    except Exception as error:  # noqa: BLE001 - EXIF is written by every camera maker; damage there is a note, not a refusal
        notes.append(f"EXIF cannot be read ({_one_line(error)})")
        return {}
    found: dict[str, str] = {}
    for names, entries in ((EXIF_TAGS, exif), (EXIF_SUB_TAGS, sub)):
        for tag in names:
            value = entries.get(ExifTags.Base[tag])
            if value not in (None, "", b""):
                found[tag] = _printable(value)
    position = _gps_degrees(gps)
    if position:
        found["GPS"] = position
    return found


def _gps_degrees(gps: dict[int, object]) -> str:
    """Latitude and longitude in decimal degrees, or nothing when absent or malformed."""
    try:
        parts = []
        for value_tag, reference_tag, negative in ((2, 1, "S"), (4, 3, "W")):
            degrees, minutes, seconds = (float(part) for part in gps[value_tag])  # type: ignore[attr-defined]
            sign = -1 if gps.get(reference_tag) == negative else 1
            parts.append(sign * (degrees + minutes / 60 + seconds / 3600))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return ""
    return f"{parts[0]:.5f}, {parts[1]:.5f}"


def _printable(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, TiffImagePlugin.IFDRational):
        value = f"{float(value):g}"
    return re.sub(r"[\x00-\x1f\x7f]+", " ", str(value)).strip()[:200]


def _one_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:120] or type(error).__name__
