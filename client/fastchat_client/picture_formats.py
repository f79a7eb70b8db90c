"""The four picture formats as their blocks: which of these the pixels are made of, and which say something else.

JPEG (ITU T.81, B.1.1), PNG (W3C PNG, third edition, 5), GIF (GIF89a, 17-26) and WebP (RFC 9649) are chains of blocks.
`read_blocks` walks the chain without decoding anything, so a bomb is known by its header, and gives back the file with
only those blocks that its pixels are made of. It knows no Pillow, no files and no people.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

JPEG, PNG, GIF, WEBP = "image/jpeg", "image/png", "image/gif", "image/webp"

LARGEST_PROFILE = 4 * 1024 * 1024
"""Bytes of a colour profile that is looked at; what is larger is dropped unread."""

MOST_SCANS = 100
"""Of a JPEG. Encoders make about ten; each may be a few bytes and cost the decoder a pass over all pixels."""

HEAD = 64
"""Bytes from the beginning of a file that are enough for `picture_type`."""


class Damaged(Exception):
    """The blocks do not form a picture; the text says why, to go on after a colon."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A picture that was taken apart, not decoded."""

    type: str
    kept: bytes
    """The same file without any block that is not needed for its pixels; nothing follows its end."""
    width: int
    height: int
    """Of the whole canvas in pixels, not turned yet; for a GIF at least what its frames cover."""
    frames: int
    exif: bytes = b""
    """A TIFF structure, without "Exif" before it; empty if there is none."""
    icc: bytes = b""
    """The colour profile; empty if there is none."""
    lossless: bool = True
    """Of a WebP: whether its pixels are exact."""
    dropped: frozenset[str] = frozenset()
    """What else was left out: comment, xmp, iptc, text, trailing, more-pictures, other."""


@dataclass(slots=True)
class _Found:
    """What a walk collects."""

    kept: list[bytes] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    frames: int = 0
    exif: bytes = b""
    icc: bytes = b""
    lossless: bool = True
    dropped: set[str] = field(default_factory=set)

    def blocks(self, type_: str) -> Blocks:
        if not all(self.size):
            raise Damaged("it has no size")
        if not self.frames:
            raise Damaged("there is no picture in it")
        return Blocks(
            type_,
            b"".join(self.kept),
            *self.size,
            self.frames,
            self.exif.removeprefix(b"Exif\0\0"),
            self.icc if len(self.icc) <= LARGEST_PROFILE else b"",
            self.lossless,
            frozenset(self.dropped),
        )


_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "image/avif"),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "image/heic"),
    b"crx ": "image/x-canon-cr3",
}
_MAGIC = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0", "image/tiff"),
    (b"MM\0+", "image/tiff"),
    (b"IIRO", "image/x-olympus-orf"),
    (b"IIU\0", "image/x-panasonic-rw2"),
    (b"FUJIFILMCCD-RAW", "image/x-fuji-raf"),
    (b"\xff\x0a", "image/jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
)


def picture_type(head: bytes) -> str:
    """The MIME type of what begins with `head` (`HEAD` bytes are enough) if it is a picture of a kind that may say
    where, when and by whom it was taken; "" for everything else, SVG and BMP too."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), HEAD)
        brands = (head[8:12], *(head[at : at + 4] for at in range(16, end, 4)))
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "")
    return next((type_ for magic, type_ in _MAGIC if head.startswith(magic)), "")


def read_blocks(data: bytes) -> Blocks:
    """Takes a JPEG, PNG, GIF or WebP apart. Raises `Damaged` for whatever is not a whole one."""
    walk = _WALKS.get(picture_type(data[:HEAD]))
    if walk is None:
        raise Damaged("it is none of JPEG, PNG, GIF and WebP")
    try:
        return walk(data)
    except (IndexError, struct.error):
        raise Damaged("it ends too early") from None


_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLES = frozenset((0xC4, 0xCC, 0xDB, 0xDC, 0xDD))
_END, _SCAN, _ADOBE, _COMMENT, _ALONE = 0xD9, 0xDA, 0xEE, 0xFE, frozenset((0x01, 0xD8))
_JFIF = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"


def _jpeg(data: bytes) -> Blocks:
    found = _Found(kept=[data[:2]])
    profile: dict[int, bytes] = {}
    at, scans = 2, 0
    while True:
        marked = _MARKER.search(data, at)
        if marked is None:
            raise Damaged("it ends too early")
        marker, at = marked[1][0], marked.end()
        if marker == _END:
            break
        if marker in _ALONE:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        body, end = data[at + 2 : at + length], at + length
        if length < 2 or end > len(data):
            raise Damaged("it ends too early")
        if marker in _FRAME_HEADERS:
            if found.frames:
                raise Damaged("it has two headers")
            height, width = struct.unpack_from(">HH", body, 1)
            found.size, found.frames = (width, height), 1
        at = end
        if marker == _SCAN:
            scans += 1
            if scans > MOST_SCANS:
                raise Damaged("it has too many scans")
            following = _MARKER.search(data, end)
            if following is None:
                raise Damaged("it ends too early")
            at = following.start()
        if marker in _FRAME_HEADERS or marker in _TABLES or marker == _SCAN:
            found.kept.append(data[marked.start(1) - 1 : at])
        elif marker == _ADOBE and body.startswith(b"Adobe"):
            found.kept.append(b"\xff\xee\x00\x0e" + body[:12].ljust(12, b"\0"))
        elif marker == 0xE0 and body.startswith(b"JFIF\0"):
            found.kept.append(_JFIF)
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            found.exif = found.exif or body
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            profile[body[12]] = body[14:]
        else:
            found.dropped.add(_what(marker, body))
    found.kept.append(b"\xff\xd9")
    found.icc = b"".join(profile[number] for number in sorted(profile))
    if len(data) > at:
        found.dropped.add("trailing")
    return found.blocks(JPEG)


def _what(marker: int, body: bytes) -> str:
    if marker == _COMMENT:
        return "comment"
    if body.startswith((b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0")):
        return "xmp"
    if body.startswith(b"Photoshop 3.0\0"):
        return "iptc"
    return "more-pictures" if body.startswith(b"MPF\0") else "other"


_PIXEL_CHUNKS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"))
_COLOUR_CHUNKS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4, b"sBIT": 4}
_DULL_CHUNKS = frozenset((b"pHYs", b"bKGD", b"hIST"))
_TEXT_CHUNKS = frozenset((b"tEXt", b"zTXt", b"iTXt"))


def _png(data: bytes) -> Blocks:
    found = _Found(kept=[data[:8]])
    at, kind, animated = 8, b"", False
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        whole = data[at : at + 12 + length]
        body, at = whole[8:-4], at + 12 + length
        if len(whole) != 12 + length:
            raise Damaged("it ends too early")
        if (kind == b"IHDR") != (len(found.kept) == 1):
            raise Damaged("its header is not where it should be")
        if kind in _PIXEL_CHUNKS or (kind in _COLOUR_CHUNKS and 0 < length <= _COLOUR_CHUNKS[kind]):
            if zlib.crc32(whole[4:-4]) != int.from_bytes(whole[-4:], "big"):
                raise Damaged("a checksum in it is wrong")
            found.kept.append(whole)
        if kind == b"IHDR":
            found.size = struct.unpack_from(">II", body)
        elif kind == b"acTL":
            animated = True
        elif kind == b"fcTL":
            found.frames += 1
            width, height, left, top = struct.unpack_from(">4I", body, 4)
            if not width or not height or left + width > found.size[0] or top + height > found.size[1]:
                raise Damaged("a frame in it is larger than the picture")
        elif kind == b"eXIf":
            found.exif = body
        elif kind == b"iCCP":
            found.icc = _inflated(body.partition(b"\0")[2][1:])
        elif kind in _TEXT_CHUNKS:
            found.dropped.add("xmp" if body.startswith(b"XML:com.adobe.xmp\0") else "text")
        elif kind not in _PIXEL_CHUNKS and kind not in _COLOUR_CHUNKS and kind not in _DULL_CHUNKS:
            found.dropped.add("other")
    found.frames = max(1, found.frames) if animated else 1
    if len(data) > at:
        found.dropped.add("trailing")
    return found.blocks(PNG)


def _inflated(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, LARGEST_PROFILE + 1)
    except zlib.error:
        return b""


_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
_GIF_IMAGE, _GIF_EXTENSION, _GIF_END = 0x2C, 0x21, 0x3B
_CONTROL, _APPLICATION, _GIF_COMMENT = 0xF9, 0xFF, 0xFE


def _gif(data: bytes) -> Blocks:
    width, height, packed = struct.unpack_from("<HHB", data, 6)
    at = 13 + _colours(packed)
    found = _Found(kept=[data[:at]])
    # Many a GIF has no end mark; one that stops anywhere else than between two blocks is not whole.
    while at < len(data) and data[at] != _GIF_END:
        begin = at
        if data[at] == _GIF_IMAGE:
            left, top, wide, high, packed = struct.unpack_from("<4HB", data, at + 1)
            width, height = max(width, left + wide), max(height, top + high)
            at = _after_blocks(data, at + 11 + _colours(packed))
            found.frames += 1
            found.kept.append(data[begin:at])
        elif data[at] == _GIF_EXTENSION:
            label = data[at + 1]
            at = _after_blocks(data, at + 2)
            block = data[begin + 3 : begin + 3 + data[begin + 2]]
            if label == _CONTROL and len(block) == 4:
                found.kept.append(b"\x21\xf9\x04" + block + b"\0")
            elif label == _APPLICATION and block in _LOOPS:
                if data[begin + 14 : begin + 16] == b"\x03\x01":
                    found.kept.append(data[begin : begin + 18] + b"\0")
            elif label == _APPLICATION and block.startswith(b"XMP Data"):
                found.dropped.add("xmp")
            else:
                found.dropped.add("comment" if label == _GIF_COMMENT else "other")
        else:
            raise Damaged("there is something unknown in it")
    if len(data) > at + 1:
        found.dropped.add("trailing")
    found.kept.append(b"\x3b")
    found.size = (width, height)
    return found.blocks(GIF)


def _colours(packed: int) -> int:
    """Bytes of the colour table that follows."""
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0


def _after_blocks(data: bytes, at: int) -> int:
    """Where the sub-blocks that begin at `at` end. Raises IndexError."""
    while length := data[at]:
        at += 1 + length
    return at + 1


def _webp(data: bytes) -> Blocks:
    (length,) = struct.unpack_from("<I", data, 4)
    if 8 + length > len(data):
        raise Damaged("it ends too early")
    found = _Found()
    for kind, body in _riff(data[12 : 8 + length]):
        if kind == b"VP8X":
            found.size = (1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"))
            found.kept.append(_chunk(kind, bytes((body[0] & 0x12,)) + bytes(3) + body[4:10]))
        elif kind in _FRAMES:
            _see_frame(found, kind, body)
            found.frames = 1
            found.kept.append(_chunk(kind, body))
        elif kind == b"ALPH" or (kind == b"ANIM" and len(body) == 6):
            found.kept.append(_chunk(kind, body))
        elif kind == b"ANMF":
            parts = [(kind, part) for kind, part in _riff(body[16:]) if kind in _FRAMES or kind == b"ALPH"]
            for part in parts:
                _see_frame(found, *part)
            found.frames += 1
            found.kept.append(_chunk(kind, body[:16] + b"".join(_chunk(*part) for part in parts)))
        elif kind == b"EXIF":
            found.exif = body
        elif kind == b"ICCP":
            found.icc = body
        else:
            found.dropped.add("xmp" if kind == b"XMP " else "other")
    if len(data) > 8 + length:
        found.dropped.add("trailing")
    inside = b"WEBP" + b"".join(found.kept)
    found.kept = [b"RIFF", struct.pack("<I", len(inside)), inside]
    return found.blocks(WEBP)


_FRAMES = frozenset((b"VP8 ", b"VP8L"))


def _see_frame(found: _Found, kind: bytes, body: bytes) -> None:
    if kind == b"ALPH":
        return
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", body, 1)
        size = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    else:
        found.lossless = False
        width, height = struct.unpack_from("<HH", body, 6)
        size = (width & 0x3FFF, height & 0x3FFF)
    if not found.size[0]:
        found.size = size
    if size[0] > found.size[0] or size[1] > found.size[1]:
        raise Damaged("a frame in it is larger than the picture")


def _riff(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + length]
        if len(body) != length:
            raise Damaged("it ends too early")
        yield kind, body
        at += 8 + length + length % 2


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


_WALKS: dict[str, Callable[[bytes], Blocks]] = {JPEG: _jpeg, PNG: _png, GIF: _gif, WEBP: _webp}
