"""What happens to a picture before it is sent, and with what care one that was received is opened.

A picture that is sent says what is on it and nothing else: it is turned as its EXIF says, its colours become sRGB, and
where, when and with what it was taken is gone. What is upright and sRGB keeps its compressed pixels and loses all other
blocks, so that not one pixel, frame or duration changes; what has to be turned or converted is encoded anew, a JPEG
with its own quantization tables. All of this blocks, for seconds if a picture is large, and waits for the one before:
call it in a thread; a thumbnail takes milliseconds. It knows nothing of messages, the vault and the network.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageCms
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from fastchat.errors import FastChatError
from fastchat_client.filenames import guess_type, named_type
from fastchat_client.picture_formats import GIF, HEAD, JPEG, PNG, WEBP, Blocks, Damaged, picture_type, read_blocks
from fastchat_client.picture_metadata import orientation, told_by

MAX_THUMBNAIL = 20 * 1024
"""Bytes of a thumbnail."""

THUMBNAIL_SIDE = 320
"""Pixels of the longer side of a thumbnail that is made here."""

LARGEST_RECEIVED_THUMBNAIL = 1024
"""Pixels of either side of a thumbnail that a peer made."""

MOST_PIXELS = 100_000_000
"""Of a picture, of all frames of an animation together. While it is prepared, a pixel costs up to 12 bytes."""

LARGEST_FILE = 128 * 1024 * 1024
"""Bytes of a picture that is looked at; a larger one can only be sent as it is."""


class PictureError(FastChatError):
    """This picture cannot be used."""

    code = "picture-refused"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as it is sent."""

    data: bytes
    """The file: turned, without metadata, in the format that it had. Empty if the original is to be sent."""
    type: str
    """Its MIME type by its content: image/jpeg, image/png, image/gif, image/webp; of an original also others."""
    width: int
    height: int
    """In pixels, as it is shown; 0 of an original that cannot be read here."""
    thumbnail: bytes
    """JPEG, or WebP where something is transparent: at most `MAX_THUMBNAIL` bytes, neither side longer than
    `THUMBNAIL_SIDE`. Empty of an original that cannot be read here."""


_NAME = re.compile(
    r"\.(?:jpe?g|jpe|jfif|a?png|gif|webp|hei[cf]|hif|avif|tiff?|jxl|jp2|jpf|dng|cr[23]|nef|arw|orf|rw2|raf)$",
    re.IGNORECASE,
)
Image.MAX_IMAGE_PIXELS = MOST_PIXELS

_FORMATS = {JPEG: "JPEG", PNG: "PNG", GIF: "GIF", WEBP: "WEBP"}
_ENDINGS = {JPEG: ".jpg", PNG: ".png", GIF: ".gif", WEBP: ".webp"}
_AS_A_FILE = "or send the original (--original, in the chat /original), as the file that it is"
_AS_IT_IS = "or send the original (--original, in the chat /original), with where, when and by whom it was taken"


def is_picture(name: str, head: bytes) -> bool:
    """Whether `prepare_picture` is to be asked: what begins with `head` (64 bytes are enough) is a picture, or `name`
    says that it is one. Kinds that may hold metadata but cannot be read here, such as HEIC and camera raw files, count:
    they must not be sent by accident as they are. SVG does not, for it is text that may contain anything, nor does BMP,
    which holds no metadata: they are ordinary files."""
    return bool(picture_type(head)) or _NAME.search(name) is not None


def prepare_picture(name: str, path: Path, *, original: bool = False) -> Picture:
    """The picture in the file `path`; `name` is what people call it.

    A name whose ending stands for something else is refused: one of the two is not what its sender takes it for.
    Without a known ending the content counts. Animations keep their frames, but are not turned and their colour profile
    is dropped; of several pictures in one JPEG file the first one stays. With `original` the file itself is to be sent:
    `data` is empty, and what cannot be read here gives a `Picture` without a size. Raises `PictureError`, which says
    what is wrong and what can be done; with `original` only if there is no such file or it cannot be read at all."""
    data = _read(name, path)
    try:
        with _ONE_AT_A_TIME, _care(name):
            blocks = _taken_apart(name, data)
            if not original:
                _check_ending(name, blocks.type)
            image = _decoded(name, blocks, MOST_PIXELS)
            shown = _shown(image, blocks)
            return Picture(
                b"" if original else _encoded(image, shown, blocks), blocks.type, *shown.size, _thumbnail(shown)
            )
    except PictureError:
        if not original:
            raise
    return Picture(b"", picture_type(data[:HEAD]) or guess_type(name, data[:HEAD]), 0, 0, b"")


def _check_ending(name: str, type_: str) -> None:
    if named_type(name) not in ("", type_):
        ending = _ENDINGS[type_]
        raise PictureError(
            f"{name} is a {_FORMATS[type_]} picture, but its name says something else: call it "
            f"{os.path.splitext(name)[0]}{ending}; {_AS_IT_IS}"
        )


def warning_about(path: Path) -> tuple[str, ...]:
    """What the file `path` tells besides the picture itself, if it is sent as it is: phrases for people, such as "where
    it was taken (52.5200, 13.4050)"; empty if nothing was found. Raises `PictureError` if it cannot be looked into."""
    data = _read(path.name, path)
    with _care(path.name):
        return told_by(data)


def open_thumbnail(data: bytes) -> Image.Image:
    """A thumbnail that came with a peer's message, decoded: mode RGB or RGBA. Raises `PictureError` if it is no JPEG,
    PNG or WebP, has more than `MAX_THUMBNAIL` bytes or `LARGEST_RECEIVED_THUMBNAIL` pixels a side, or is damaged."""
    if len(data) > MAX_THUMBNAIL:
        raise PictureError("The thumbnail is too large")
    with _care("The thumbnail"):
        blocks = read_blocks(data)
        if blocks.type == GIF or max(blocks.width, blocks.height) > LARGEST_RECEIVED_THUMBNAIL:
            raise PictureError("The thumbnail is none, or too large")
        return _for_screen(_turned(_decoded("The thumbnail", blocks, LARGEST_RECEIVED_THUMBNAIL**2), blocks))


def open_received(path: Path, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """A picture that was received, to be shown: its first frame, turned, in sRGB, mode RGB or RGBA. Raises
    `PictureError` if it has more than `most_pixels` in all, is damaged, or cannot be read here."""
    name, data = path.name, _read(path.name, path)
    with _ONE_AT_A_TIME, _care(name):
        blocks = _taken_apart(name, data)
        return _for_screen(_shown(_decoded(name, blocks, most_pixels), blocks))


def _read(name: str, path: Path) -> bytes:
    """At most one byte more than `LARGEST_FILE`. What is no file is not waited for, as a pipe would have to be."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PictureError(f"{name} is not a file")
            return file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise PictureError(f"{name} cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in the path
        raise PictureError(f"{name} cannot be read: there cannot be such a file") from None


_ONE_AT_A_TIME = threading.Lock()
"""Held while a picture of any size is in memory: that bounds how much of it is used."""


class _Quiet:
    """While anybody is in it, what Pillow warns of is not printed, and a bomb is an error. Warnings are filtered for
    the whole process: who comes first sets the filters, who leaves last puts back what was there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.|fastchat_client\.picture")
                warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


_QUIET = _Quiet()


@contextmanager
def _care(name: str) -> Iterator[None]:
    """Whatever Pillow makes of bytes that somebody chose becomes `PictureError`, and its warnings are not printed."""
    with _QUIET:
        try:
            yield
        except PictureError:
            raise
        except Damaged as problem:
            raise PictureError(f"{name} is a damaged picture: {problem}; {_AS_IT_IS}") from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError, MemoryError):
            raise _too_large(name) from None
        except Exception:  # a decoder fails in as many ways as bytes can be wrong
            raise PictureError(f"{name} is a damaged picture: it cannot be decoded; {_AS_IT_IS}") from None


def _too_large(name: str) -> PictureError:
    return PictureError(f"{name} has too many pixels or frames, or is too large a file, to be read here; {_AS_IT_IS}")


def _taken_apart(name: str, data: bytes) -> Blocks:
    type_ = picture_type(data[:HEAD])
    if not data:
        raise PictureError(f"{name} is an empty file, not a picture; {_AS_A_FILE}")
    if not type_:
        raise PictureError(f"{name} is not a picture, though its name says so; {_AS_A_FILE}")
    if type_ not in _FORMATS:
        kind = type_.removeprefix("image/").removeprefix("x-").upper()
        raise PictureError(
            f"{name} is {kind}, which cannot be cleaned of its metadata here: save it as JPEG or PNG; {_AS_IT_IS}"
        )
    if len(data) > LARGEST_FILE:
        raise _too_large(name)
    return read_blocks(data)


def _decoded(name: str, blocks: Blocks, most_pixels: int) -> Image.Image:
    """The first frame. It is decoded from what was kept, so that nothing else in the file meets a decoder."""
    if blocks.width * blocks.height * blocks.frames > most_pixels:
        raise _too_large(name)
    image = Image.open(BytesIO(blocks.kept), formats=(_FORMATS[blocks.type],))
    image.load()
    return image


def _shown(image: Image.Image, blocks: Blocks) -> Image.Image:
    """As it is to be seen: turned and in sRGB; `image` itself if it is so already. If not, the pixels of `image` are
    given up as soon as they can be, while its tables stay: they may be hundreds of MiB."""
    if blocks.frames > 1:
        return image
    turned = _turned(image, blocks)
    if turned is not image:
        image.close()
    shown = _in_srgb(turned, blocks.icc)
    if shown is not turned:
        turned.close()
    return shown


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation (EXIF 2.32, 4.6.4 A)."""


def _turned(image: Image.Image, blocks: Blocks) -> Image.Image:
    turn = _TURNS.get(orientation(blocks.exif))
    return image if turn is None else image.transpose(turn)


def _in_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """`image` itself if its profile says nothing else, cannot be used, or is of no help: 16 and 1 bit stay exact."""
    if not icc or image.mode in ("1", "I;16"):
        return image
    base = {"CMYK": "CMYK", "L": "L", "LA": "L"}.get(image.mode, "RGB")
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), base, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return image
    if base != "CMYK" and _changes_nothing(transform, base):
        return image
    plain = _plain(image) if base == "RGB" else image
    colours = plain.convert(base) if plain.mode != base else plain
    converted = ImageCms.applyTransform(colours, transform)
    assert converted is not None
    if base == "L":
        converted = converted.convert("L")
    if "A" in plain.getbands():
        converted.putalpha(plain.getchannel("A"))
    return converted


def _changes_nothing(transform: ImageCms.ImageCmsTransform, base: str) -> bool:
    """Whether no colour is moved by more than rounding: most profiles are sRGB, whatever they are called."""
    steps = bytes(range(0, 256, 15))
    if base == "L":
        sample = Image.frombytes("L", (len(steps), 1), steps)
    else:
        cube = bytes(value for red in steps for green in steps for blue in steps for value in (red, green, blue))
        sample = Image.frombytes("RGB", (len(cube) // 3, 1), cube)
    moved = ImageCms.applyTransform(sample, transform)
    assert moved is not None
    bands = ImageChops.difference(moved, sample.convert("RGB")).split()
    return all(band.histogram()[3:] == [0] * 253 for band in bands)


def _encoded(image: Image.Image, shown: Image.Image, blocks: Blocks) -> bytes:
    if shown is image and image.mode != "CMYK":
        return blocks.kept
    if isinstance(image, JpegImageFile):
        return _jpeg(image, shown, blocks)
    # Pillow writes some of what it finds in `info`, and all that is needed of it is this.
    transparency = shown.info.get("transparency")
    shown.info = {} if transparency is None else {"transparency": transparency}
    if blocks.type == PNG:
        return _saved(shown, "PNG")
    return _saved(shown, "WEBP", lossless=True, exact=True) if blocks.lossless else _saved(shown, "WEBP", quality=92)


def _jpeg(image: JpegImageFile, shown: Image.Image, blocks: Blocks) -> bytes:
    """With the tables that it was encoded with, so that most coefficients come out as they were."""
    options: dict[str, Any] = {"quality": 92}
    if image.mode != "CMYK":
        tables = [image.quantization[layer[3]] for layer in (image.layer[0], image.layer[-1])]
        sampling = get_sampling(image)
        if orientation(blocks.exif) >= 5:  # rows have become columns
            tables = [[table[8 * (at % 8) + at // 8] for at in range(64)] for table in tables]
            sampling = 0 if sampling == 1 else sampling
        options = {"qtables": tables[: len(image.layer)], "subsampling": max(sampling, 0)}
    if shown.mode not in ("L", "RGB"):
        shown = shown.convert("RGB")
    shown.info = {}
    try:
        return _saved(shown, "JPEG", optimize=True, progressive="progressive" in image.info, **options)
    except OSError:  # larger than Pillow foresees where all of it has to be in memory at once
        return _saved(shown, "JPEG", **options)


def _saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def _plain(image: Image.Image) -> Image.Image:
    """As RGB, or RGBA if anything in it may be transparent, with 8 bits for each."""
    if image.mode == "I;16":
        image = Image.frombytes("L", image.size, image.tobytes()[1::2])
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _for_screen(image: Image.Image) -> Image.Image:
    """Detached from its file, and without anything but pixels."""
    plain = _plain(image).copy()
    plain.info = {}
    return plain


def _thumbnail(image: Image.Image) -> bytes:
    plain = _plain(image)
    data = b""
    for longest in (THUMBNAIL_SIDE, 240, 160, 96, 48):
        scale = min(1, longest / max(plain.size))
        size = (max(1, round(plain.width * scale)), max(1, round(plain.height * scale)))
        small = plain.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
        small.info = {}
        is_opaque = small.mode == "RGB" or small.getchannel("A").getextrema() == (255, 255)
        for quality in (80, 65, 50, 35):
            if is_opaque:
                data = _saved(small.convert("RGB"), "JPEG", quality=quality, optimize=True)
            else:
                data = _saved(small, "WEBP", quality=quality)
            if len(data) <= MAX_THUMBNAIL:
                return data
    return data
