"""What a picture file tells besides the picture: which way up it is, and what would be given away with the original.

It reads bytes that somebody chose with Pillow's reader of EXIF: whoever calls it is ready for any exception.
"""

from __future__ import annotations

import re
from typing import Any

from PIL.ExifTags import GPS, IFD, Base
from PIL.Image import Exif

from fastchat_client.picture_formats import HEAD, Damaged, picture_type, read_blocks

_ANYWHERE = re.compile(rb"Exif\0\0(?:\0\0)?(?=II\*\0|MM\0\*)")
_FILM = re.compile(rb"ftyp(?:mp4[12]|isom|qt  |M4V )")


def orientation(exif: bytes) -> int:
    """1 to 8, as EXIF's Orientation; 1 (upright) if `exif` does not say or cannot be read."""
    if not exif:
        return 1
    try:
        found = _exif(exif).get(Base.Orientation)
    except Exception:  # as many kinds as bytes can be wrong; viewers show such a picture as it is
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def told_by(data: bytes) -> tuple[str, ...]:
    """Phrases for people, each one thing that the file `data` tells, to stand in a list: what is found in its EXIF
    first, then what else is in it. Of a kind that cannot be taken apart here, what looks like EXIF is believed."""
    try:
        blocks = read_blocks(data)
    except Damaged:
        return _told_by_unknown(data)
    told = _told_by_exif(blocks.exif) if blocks.exif else []
    told += [text for what, text in _OTHERS.items() if what in blocks.dropped]
    if "trailing" in blocks.dropped:
        told.append(_FILM_TEXT if _FILM.search(data, len(blocks.kept)) else _TRAILING_TEXT)
    return tuple(told)


_OTHERS = {
    "xmp": "what programs noted in it (XMP): edits, ratings, names, places",
    "iptc": "a caption, names or places for the press (IPTC)",
    "comment": "a comment",
    "text": "notes as text",
    "more-pictures": "more pictures in the same file, such as a preview or another exposure",
    "other": "data of the camera's or a program's own",
}
_FILM_TEXT = "a short film after the end of the picture, perhaps with sound"
_TRAILING_TEXT = "data after the end of the picture, such as an earlier version of it"


def _told_by_unknown(data: bytes) -> tuple[str, ...]:
    kind = picture_type(data[:HEAD])
    found = _ANYWHERE.search(data)
    exif = data if kind == "image/tiff" else data[found.end() :] if found else b""
    told = _told_by_exif(exif) if exif else []
    if kind or found:
        told.append("whatever else is in it: it cannot be looked into here")
    return tuple(told)


def _exif(exif: bytes) -> Exif:
    found = Exif()
    found.load(b"Exif\0\0" + exif)
    return found


def _told_by_exif(exif: bytes) -> list[str]:
    try:
        found = _exif(exif)
        main: dict[int, Any] = {**found, **found.get_ifd(IFD.Exif)}
        places: dict[int, Any] = dict(found.get_ifd(IFD.GPSInfo))
        preview = found.get_ifd(IFD.IFD1)
    except Exception:  # as above
        return ["what the camera noted in it (EXIF), which is damaged and cannot be looked into here"]
    told = []
    if GPS.GPSLatitude in places or GPS.GPSLongitude in places:
        told.append(f"where it was taken{_place(places)}")
    elif len(places) > 1:
        told.append("something about the place where it was taken (GPS)")
    if taken := _text(main.get(Base.DateTimeOriginal) or main.get(Base.DateTime)):
        told.append(f"when it was taken ({taken})")
    maker, model = _text(main.get(Base.Make)), _text(main.get(Base.Model))
    if camera := model if model.startswith(maker) else f"{maker} {model}".strip():
        told.append(f"with what it was taken ({camera})")
    if any(_text(main.get(tag)) for tag in (Base.BodySerialNumber, Base.LensSerialNumber, Base.CameraSerialNumber)):
        told.append("the camera's serial number")
    if person := _text(main.get(Base.Artist) or main.get(Base.CameraOwnerName) or main.get(Base.Copyright)):
        told.append(f"by whom it was taken ({person})")
    if program := _text(main.get(Base.Software)):
        told.append(f"with which program it was made ({program})")
    if Base.MakerNote in main:
        told.append("the maker's notes, whose content is not known")
    if any(main.get(tag) for tag in (Base.ImageDescription, Base.UserComment)):
        told.append("a description or comment")
    if preview:
        told.append("a small preview, which may show more than the picture does now")
    return told or ["what the camera or a program noted in it (EXIF)"]


def _text(value: object) -> str:
    """At most 60 characters of it, all of which can be shown."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else ""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:60]


def _place(places: dict[int, Any]) -> str:
    try:
        latitude = _degrees(places[GPS.GPSLatitude], places.get(GPS.GPSLatitudeRef) == "S")
        longitude = _degrees(places[GPS.GPSLongitude], places.get(GPS.GPSLongitudeRef) == "W")
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return ""
    return f" ({latitude:.4f}, {longitude:.4f})"


def _degrees(parts: Any, negative: bool) -> float:
    degrees, minutes, seconds = (float(part) for part in parts)
    total = degrees + minutes / 60 + seconds / 3600
    return -total if negative else total
