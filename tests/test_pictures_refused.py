"""Pictures that are broken, none, or bombs, here and from others: each ends in one error that says what can be done."""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image
from twisted.trial.unittest import SynchronousTestCase

from fastchat_client.pictures import (
    MAX_THUMBNAIL,
    PictureError,
    is_picture,
    open_received,
    open_thumbnail,
    prepare_picture,
    warning_about,
)
from tests.support import pictures as made


class PictureTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def file(self, data: bytes, name: str = "picture") -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def refused(self, data: bytes, says: str, name: str = "picture") -> None:
        with self.assertRaises(PictureError) as caught:
            prepare_picture(name, self.file(data))
        self.assertEqual(caught.exception.code, "picture-refused")
        self.assertIn(says, caught.exception.message)
        # As the command line has it, and as the chat has it.
        self.assertIn("or send the original (--original, in the chat /original)", caught.exception.message)


class Refused(PictureTest):
    def test_each_says_why_and_what_to_do(self) -> None:
        for data, says in (
            (b"", "empty"),
            (b"only words\n", "is not a picture"),
            (made.SVG, "is not a picture"),
            (made.heic(), "HEIC"),
            (b"II*\0" + bytes(90), "TIFF"),
            (made.photo()[:2000], "damaged"),
            (made.drawing()[:4000], "damaged"),
            (made.animation()[:690], "damaged"),
            (made.webp()[:900], "damaged"),
            (b"\xff\xd8\xff\xd9", "damaged"),
            (b"GIF89a" + bytes(7) + b";", "damaged"),
        ):
            self.refused(data, says)

    def test_bombs_are_refused_by_their_headers(self) -> None:
        for data in (
            made.png_bomb(),
            made.png_bomb(2**31 - 1, 2**31 - 1),
            made.jpeg_bomb(),
            made.webp_bomb(),
            made.gif_bomb(),
            made.gif_bomb(1, 65_535),
            made.apng_bomb(),
        ):
            self.refused(data, "too many pixels")
            self.assertRaises(PictureError, open_received, self.file(data))

    def test_a_jpeg_of_a_thousand_scans(self) -> None:
        self.refused(made.scan_bomb(), "scans")
        self.assertRaises(PictureError, open_thumbnail, made.scan_bomb(200))

    def test_a_frame_outside_of_its_canvas_counts(self) -> None:
        bomb = made.gif_bomb(1, 1).replace(b"\x2c\0\0\0\0\x01\0\x01\0", b"\x2c\0\0\0\0\xff\xff\xff\xff")
        self.refused(bomb, "too many pixels")
        larger = made.gif_bomb(1, 1).replace(b"\x2c\0\0\0\0\x01\0\x01\0", b"\x2c\x09\0\0\0\x09\0\x09\0")
        error = self.assertRaises(PictureError, open_received, self.file(larger), 18 * 9 - 1)
        self.assertIn("too many pixels", error.message)

    def test_a_checksum_a_second_header_and_a_frame_that_is_too_large(self) -> None:
        png, jpeg, animation = bytearray(made.drawing()), made.photo(), bytearray(made.moving("PNG"))
        png[29] ^= 1
        self.refused(bytes(png), "checksum")
        plain = made.drawing()
        self.refused(plain[:33] + plain[8:33] + plain[33:], "header is not where")
        header = jpeg.index(b"\xff\xc0")
        self.refused(jpeg[:header] + jpeg[header : header + 19] + jpeg[header:], "two headers")
        frame = animation.index(b"fcTL")
        animation[frame + 8 : frame + 12] = (65).to_bytes(4, "big")
        animation[frame + 30 : frame + 34] = zlib.crc32(animation[frame : frame + 30]).to_bytes(4, "big")
        self.refused(bytes(animation), "larger than the picture")
        for webp in (bytearray(made.webp()), bytearray(made.moving("WEBP"))):
            webp[24:30] = (9).to_bytes(3, "little") * 2
            self.refused(bytes(webp), "larger than the picture")

    def test_warnings_are_filtered_as_before(self) -> None:
        before = list(warnings.filters)
        self.assertRaises(PictureError, open_thumbnail, made.png_bomb())
        self.assertTrue(open_received(self.file(made.photo())))
        self.assertEqual(list(warnings.filters), before)

    def test_what_is_no_file(self) -> None:
        os.mkfifo(self.folder / "pipe.jpg")
        for name in ("pipe.jpg", ".", "missing.jpg", "nul\0.jpg", "x" * 300):
            for original in (False, True):
                self.assertRaises(PictureError, prepare_picture, name, self.folder / name, original=original)
            self.assertRaises(PictureError, warning_about, self.folder / name)
            self.assertRaises(PictureError, open_received, self.folder / name)

    def test_what_is_asked_about(self) -> None:
        for name, data in (
            ("a.JPG", b""),
            ("a.heic", b"anything"),
            ("a.dng", b"anything"),
            ("a.txt", made.drawing()),
            ("", made.animation()),
            ("a", made.heic()),
        ):
            self.assertTrue(is_picture(name, data[:64]), name)
        for name, data in (("a.txt", b"words"), ("a.svg", made.SVG), ("jpg", b""), ("a.bmp", b"BM" + bytes(60))):
            self.assertFalse(is_picture(name, data[:64]), name)


class Received(PictureTest):
    def test_a_thumbnail(self) -> None:
        small = made.scene(200, 150)
        for format_ in ("JPEG", "PNG", "WEBP"):
            self.assertEqual(open_thumbnail(made.saved(small.quantize(16).convert("RGB"), format_)).size, (200, 150))

    def test_a_thumbnail_that_is_none(self) -> None:
        plain = Image.new("1", (1025, 2))
        for data in (
            b"",
            b"words",
            made.animation(),
            made.heic(),
            made.SVG,
            made.png_bomb(),
            made.jpeg_bomb(),
            made.webp_bomb(),
            made.saved(plain, "PNG"),
            made.saved(plain.transpose(Image.Transpose.ROTATE_90), "PNG"),
            made.saved(made.scene(), "BMP"),
            made.saved(made.scene(), "JPEG") + bytes(MAX_THUMBNAIL),
        ):
            self.assertRaises(PictureError, open_thumbnail, data)

    def test_a_picture_is_turned_and_shown_in_srgb(self) -> None:
        image = open_received(self.file(made.photo(6, icc=made.wide_profile())))
        self.assertEqual((image.mode, image.size, image.info), ("RGB", (made.HEIGHT, made.WIDTH), {}))
        self.assertEqual(open_received(self.file(made.animation())).size, (64, 48))
        self.assertEqual(open_received(self.file(made.drawing())).mode, "RGBA")

    def test_it_may_have_so_many_pixels(self) -> None:
        path = self.file(made.photo())
        self.assertTrue(open_received(path, made.WIDTH * made.HEIGHT))
        self.assertRaises(PictureError, open_received, path, made.WIDTH * made.HEIGHT - 1)


SOURCES = (
    made.photo(icc=made.wide_profile()),
    made.photo(progressive=True),
    made.drawing(),
    made.saved(made.scene(40, 30), "PNG", icc_profile=made.wide_profile()),
    made.moving("PNG"),
    made.animation(),
    made.webp(6, icc=made.wide_profile()),
    made.webp(image=made.transparent(), lossless=True),
    made.moving("WEBP"),
    made.heic(),
    b"II*\0" + made.exif()[14:],
)


@some.composite
def damaged(draw: some.DrawFn) -> bytes:
    """One of `SOURCES` with some bytes changed, a piece cut out or the end cut off."""
    data = bytearray(draw(some.sampled_from(SOURCES)))
    # What is near the beginning says what all the rest means.
    place = some.one_of(some.integers(0, 200), some.integers(0, len(data) - 1))
    for at in draw(some.lists(place, max_size=6)):
        data[at] = draw(some.one_of(some.sampled_from((0, 1, 0x7F, 0x80, 0xFF)), some.integers(0, 255)))
    if draw(some.booleans()):
        begin = draw(place)
        del data[begin : begin + draw(some.integers(1, 60))]
    return bytes(data[: draw(some.one_of(some.just(len(data)), place))])


class AnyBytes(PictureTest):
    @settings(deadline=None, max_examples=250)
    @given(damaged())
    def test_nothing_but_picture_error_comes_out(self, data: bytes) -> None:
        path = self.file(data)
        with warnings.catch_warnings(record=True) as printed:
            warnings.simplefilter("always")
            calls: tuple[Callable[[], object], ...] = (
                lambda: self.sent_or_refused(data),
                lambda: prepare_picture("a.png", path, original=True),
                lambda: open_received(path),
                lambda: open_thumbnail(data),
                lambda: warning_about(path),
            )
            for call in calls:
                try:
                    call()
                except PictureError as error:
                    self.assertTrue(error.message)
        self.assertEqual([str(each.message) for each in printed], [])

    def sent_or_refused(self, data: bytes) -> None:
        """What is sent of something damaged can be read, and is small enough to be shown."""
        picture = prepare_picture("a.png", self.folder / "picture")
        self.assertLessEqual(len(picture.thumbnail), MAX_THUMBNAIL)
        self.assertEqual(prepare_picture("a.png", self.file(picture.data, "again")).type, picture.type)
