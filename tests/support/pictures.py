"""Pictures and names for tests, made in memory: what cameras, editors and people with bad intentions leave behind.

Each function gives the bytes of one file. `SECRETS` are what files here say besides their pixels: none of these may be
in anything that is sent.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw
from PIL.ExifTags import GPS, IFD, Base

WIDTH, HEIGHT = 120, 88
"""Of `scene`: whole blocks of 8 in both directions, but no whole number of 16 in one."""

CAMERA, SERIAL, PERSON, TAKEN, MAKER = (
    "Brandnerflex Q9",
    "SN-4471-0815",
    "Erika Musterfrau",
    "2023:07:14 18:32:01",
    "MkNt",
)
LATITUDE, LONGITUDE = 48.2082, 16.3738
SECRETS: tuple[bytes, ...] = (
    *(word.encode() for word in (CAMERA, SERIAL, PERSON, TAKEN, MAKER)),
    *(
        b"Exif",
        b"http://ns.adobe.com",
        b"xmpmeta",
        b"Photoshop 3.0",
        b"MPF\0",
        b"ICC_PROFILE",
        b"iCCP",
        b"ICCP",
    ),
    *(
        b"tEXt",
        b"zTXt",
        b"iTXt",
        b"eXIf",
        b"EXIF",
        b"XMP ",
        b"tIME",
        b"pHYs",
        b"ftyp",
        b"Geheimgasse",
        b"after the end",
    ),
)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description photoshop:City="Geheimgasse 7"/></rdf:RDF></x:xmpmeta>'
)
TRAILING = b"\0\0\0\x18ftypisom after the end: a film with sound" + bytes(range(256))

CORNERS = ((220, 30, 30), (30, 160, 40), (40, 60, 200), (230, 210, 50))
"""Of `scene`: top left, top right, bottom left, bottom right. Which way up a picture is can be seen by them."""


def scene(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Something smooth and something sharp, RGB, with `CORNERS` of 16 pixels."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    round_ = Image.radial_gradient("L").resize((width, height))
    image = Image.merge("RGB", (across, down, round_))
    draw = ImageDraw.Draw(image)
    draw.line((20, 20, width - 20, height - 20), (255, 255, 255), 3)
    draw.ellipse((width // 3, height // 4, width // 2, height // 2), (250, 120, 10))
    for number, colour in enumerate(CORNERS):
        left, top = (number % 2) * (width - 16), (number // 2) * (height - 16)
        draw.rectangle((left, top, left + 15, top + 15), colour)
    return image


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def exif(orientation: int = 1) -> bytes:
    """All that a telephone notes, with its "Exif" in front."""
    made = Image.Exif()
    made[Base.Orientation] = orientation
    made[Base.Make], made[Base.Model] = CAMERA.split(" ")[0], CAMERA
    made[Base.Artist], made[Base.Software], made[Base.DateTime] = PERSON, "Retusche 3", TAKEN
    made[Base.ImageDescription] = "Geheimgasse 7"
    details = made.get_ifd(IFD.Exif)
    details[Base.DateTimeOriginal], details[Base.BodySerialNumber] = TAKEN, SERIAL
    details[Base.MakerNote] = MAKER.encode() * 50
    place = made.get_ifd(IFD.GPSInfo)
    place[GPS.GPSLatitudeRef], place[GPS.GPSLatitude] = "N", _degrees(LATITUDE)
    place[GPS.GPSLongitudeRef], place[GPS.GPSLongitude] = "E", _degrees(LONGITUDE)
    return made.tobytes()


def _degrees(value: float) -> tuple[float, float, float]:
    minutes = value % 1 * 60
    return float(int(value)), float(int(minutes)), round(minutes % 1 * 60, 4)


def photo(orientation: int = 6, *, image: Image.Image | None = None, icc: bytes = b"", **options: Any) -> bytes:
    """A JPEG as telephones write it: lying on its side, with the place (GPS), the time, the camera and its owner in
    EXIF and XMP, the maker's notes, words for the press (IPTC), a comment, an index of further pictures (MPF), and a
    short film after its end. Pixels: `image`, or `scene`."""
    plain = saved(image or scene(), "JPEG", **{"quality": 90, "icc_profile": icc or None, **options})
    iptc = b"\x1c\x02\x5a\x00\x0bGeheimgasse"
    press = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + b"\0"
    segments = (
        (0xE1, exif(orientation)),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
        (0xE2, b"MPF\0" + _index()),
        (0xED, press),
        (0xFE, b"Taken in Geheimgasse 7"),
    )
    return plain[:2] + b"".join(_segment(*each) for each in segments) + plain[2:] + TRAILING


def rgb_photo() -> bytes:
    """A JPEG of RGB, not YCbCr, of which Adobe's marker alone tells that it is."""
    data = saved(scene(), "JPEG", quality=95, keep_rgb=True, subsampling=0)
    header, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    named = bytearray(data)
    for number in range(3):
        named[header + 10 + 3 * number] = named[scan + 5 + 2 * number] = number + 1
    return bytes(named)


def _index() -> bytes:
    """Of one picture (CIPA DC-007, 5.2): what a telephone writes whose other pictures were cut off."""
    entries = struct.pack(">HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(">HHII", 0xB001, 4, 1, 1)
    entries += struct.pack(">HHII", 0xB002, 7, 16, 50)
    return (
        b"MM\0*\0\0\0\x08" + struct.pack(">H", 3) + entries + bytes(4) + struct.pack(">IIIHH", 0x30000, 9000, 0, 0, 0)
    )


def with_exif(tiff: bytes) -> bytes:
    """A JPEG with this EXIF and nothing else."""
    plain = saved(scene(), "JPEG")
    return plain[:2] + _segment(0xE1, b"Exif\0\0" + tiff) + plain[2:]


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_secrets(png: bytes, orientation: int = 1) -> bytes:
    """A PNG with text of every kind, EXIF, a time, and something after its end."""
    header, rest = png[:33], png[33:]
    texts = (
        chunk(b"tEXt", b"Author\0" + PERSON.encode()),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"Geheimgasse 7")),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(b"eXIf", exif(orientation).removeprefix(b"Exif\0\0")),
        chunk(b"tIME", struct.pack(">H5B", 2023, 7, 14, 18, 32, 1)),
        chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
    )
    return header + b"".join(texts) + rest + TRAILING


def transparent() -> Image.Image:
    """`scene` with every degree of transparency: mode RGBA."""
    image = scene()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def drawing() -> bytes:
    """A PNG with alpha and all that `with_secrets` puts into it."""
    return with_secrets(saved(transparent(), "PNG"))


DURATIONS = (70, 200, 40, 330)
"""Of `animation`, in milliseconds."""
LOOPS = 3


def frames() -> list[Image.Image]:
    """A disc that goes across; no two frames have the same palette."""
    made = []
    for number in range(len(DURATIONS)):
        image = Image.new("RGB", (64, 48), (20 * number, 40, 90))
        ImageDraw.Draw(image).ellipse((10 * number, 10, 10 * number + 20, 30), (250 - 30 * number, 200, 60 * number))
        made.append(image)
    return made


def animation() -> bytes:
    """A GIF of four frames, each with its own duration, that plays four times; with a comment, XMP, and something after
    its end."""
    first, *others = frames()
    plain = saved(first, "GIF", save_all=True, append_images=others, duration=list(DURATIONS), loop=LOOPS, disposal=2)
    colours = 3 << ((plain[10] & 7) + 1) if plain[10] & 0x80 else 0
    comment = b"\x21\xfe\x0dGeheimgasse 7\0"
    # XMP in a GIF is no sub-blocks: its trailer makes whatever walks them come out at the end.
    xmp = b"\x21\xff\x0bXMP DataXMP" + XMP + b"\x01" + bytes(range(255, -1, -1)) + b"\0"
    other = b"\x21\xff\x0bGeheimgasse\x03\x01\0\0\0"
    at = 13 + colours
    return plain[:at] + comment + xmp + other + plain[at:] + TRAILING


def moving(format_: str) -> bytes:
    """The frames of `animation` as PNG or WEBP, with EXIF and XMP where the format has them."""
    first, *others = frames()
    options: dict[str, Any] = {"save_all": True, "append_images": others, "duration": list(DURATIONS), "loop": LOOPS}
    if format_ == "PNG":
        return with_secrets(saved(first, "PNG", **options))
    return saved(first, "WEBP", **options, quality=80, exif=exif(), xmp=XMP) + TRAILING


def webp(orientation: int = 1, *, image: Image.Image | None = None, icc: bytes = b"", **options: Any) -> bytes:
    return (
        saved(image or scene(), "WEBP", **{"quality": 85, **options}, exif=exif(orientation), xmp=XMP, icc_profile=icc)
        + TRAILING
    )


def heic() -> bytes:
    """The beginning of a HEIC with its EXIF: enough to tell what it is, nothing that could be decoded."""
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0\0\0\x10meta\0\0\0\0\0\0\0\0" + exif(6) + bytes(500)


SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><circle r="4"/></svg>\n'


def png_bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A PNG of 5 KB that would be 2.5 gigapixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def apng_bomb(count: int = 200, side: int = 1_000) -> bytes:
    """An animated PNG of `count` frames of one pixel each on a canvas of `side` × `side`."""
    lines = zlib.compress(bytes(side * (side // 8 + 1)), 9)
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))]
    parts += [chunk(b"acTL", struct.pack(">II", count, 0)), chunk(b"IDAT", lines)]
    for number in range(0, 2 * count, 2):
        parts.append(chunk(b"fcTL", struct.pack(">5I2H2B", number, 1, 1, 0, 0, 1, 10, 0, 0)))
        parts.append(chunk(b"fdAT", struct.pack(">I", number + 1) + zlib.compress(bytes(2))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def jpeg_bomb() -> bytes:
    """A JPEG whose header says 65,500 × 65,500 pixels."""
    plain = bytearray(saved(scene(), "JPEG"))
    at = plain.index(b"\xff\xc0")
    plain[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
    return bytes(plain)


def scan_bomb(count: int = 1_000) -> bytes:
    """A progressive JPEG of a few KB with `count` scans, each a pass over all of its pixels."""
    plain = saved(Image.new("L", (512, 512)), "JPEG", progressive=True)
    last = plain.rindex(b"\xff\xda")
    return plain[:last] + plain[last:-2] * count + plain[-2:]


def gif_bomb(count: int = 10_000, side: int = 1_000) -> bytes:
    """A GIF of `count` frames of one pixel each on a canvas of `side` × `side`."""
    frame = b"\x21\xf9\x04\0\x02\0\0\0" + b"\x2c" + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", side, side, 0x80, 0, 0)
        + bytes((0, 0, 0, 255, 255, 255))
        + frame * count
        + b";"
    )


def webp_bomb() -> bytes:
    """A WebP whose canvas is said to be 16,000 × 16,000 pixels."""
    plain = bytearray(webp())
    at = plain.index(b"VP8X")
    plain[at + 12 : at + 18] = (15_999).to_bytes(3, "little") * 2
    return bytes(plain)


def wide_profile() -> bytes:
    """An ICC profile (version 2, matrix and curves) with Adobe RGB's primaries and a gamma of 2.2: no sRGB."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    def text(words: bytes) -> bytes:
        return b"desc\0\0\0\0" + struct.pack(">I", len(words) + 1) + words + b"\0" + bytes(12 + 67)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    tags = {
        b"desc": text(f"of {PERSON}".encode()),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9505, 1.0, 1.0891),
        b"rXYZ": b"XYZ \0\0\0\0" + fixed(0.60974, 0.31111, 0.01947),
        b"gXYZ": b"XYZ \0\0\0\0" + fixed(0.20528, 0.62567, 0.06087),
        b"bXYZ": b"XYZ \0\0\0\0" + fixed(0.14919, 0.06322, 0.74457),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    directory, body = struct.pack(">I", len(tags)), b""
    begin = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        directory += tag + struct.pack(">II", begin + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = begin + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"none", 0x02200000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2023, 7, 14, 18, 32, 1) + b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249)
    return header.ljust(128, b"\0") + directory + body


NAMES_FROM_HELL = (
    "../../../etc/passwd",
    "..\\..\\windows\\system32\\cmd.exe",
    "/etc/shadow",
    "C:\\autoexec.bat",
    "notes.txt:hidden",
    "",
    ".",
    "..",
    "...",
    " ",
    ".bashrc",
    "-rf",
    "--help.txt",
    "CON",
    "nul.txt",
    "Com1 .log",
    "LPT³",
    "trailing. . .",
    "two\nlines\r\t.txt",
    "bell\x07\x1b[2J\x00.txt",
    "annual\u202egpj.exe",
    "zero\u200bwidth\u200d\ufeff.txt",
    "\u0301accent first",
    "private\ue000use\U000f0000",
    "unassigned\U000e0fff\u0378",
    "half\ud83d",
    "a\u2215b\uff0fc\u2044d\uff3ce\u29f8f",
    "e\u0301te\u0301.txt",
    "\u3164",
    "blank\u00a0and\u2028line\u3000end.txt",
    'what*is?"this"<>|.txt',
    "x" * 400,
    "x" * 400 + ".tar.gz",
    "\U0001f600" * 60 + ".jpeg",
    "a." + "y" * 300,
    "." * 300 + "z",
    "a..b...c",
    "$(reboot)`ls`;&.sh",
    "~root",
    "%2e%2e%2fetc",
)
