"""Pictures before they are sent: the same pixels, upright and in sRGB, and not a word besides."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageCms, ImageOps, ImageSequence, ImageStat
from PIL.ExifTags import Base
from PIL.JpegImagePlugin import JpegImageFile, get_sampling
from twisted.trial.unittest import SynchronousTestCase

from fastchat_client.pictures import (
    MAX_THUMBNAIL,
    THUMBNAIL_SIDE,
    Picture,
    PictureError,
    open_thumbnail,
    prepare_picture,
    warning_about,
)
from tests.support import pictures as made


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def mean_difference(one: Image.Image, other: Image.Image) -> float:
    """Of all values, 0 to 255."""
    difference = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    return sum(ImageStat.Stat(difference).mean) / 3


def colour(image: Image.Image, at: tuple[int, int]) -> tuple[int, ...]:
    """Red, green and blue."""
    found = image.convert("RGB").getpixel(at)
    assert isinstance(found, tuple)
    return found


def tables(image: Image.Image) -> list[list[int]]:
    assert isinstance(image, JpegImageFile)
    return [list(table) for _, table in sorted(image.quantization.items())]


def corners(image: Image.Image) -> list[int]:
    """Which of `made.CORNERS` is top left, top right, bottom left and bottom right."""
    right, bottom = image.width - 7, image.height - 7
    seen = [colour(image, at) for at in ((6, 6), (right, 6), (6, bottom), (right, bottom))]
    distances = [[sum(abs(a - b) for a, b in zip(one, known, strict=True)) for known in made.CORNERS] for one in seen]
    return [each.index(min(each)) for each in distances]


def shown(data: bytes) -> list[tuple[bytes, int]]:
    """The frames of an animation as they are seen, with their durations."""
    image = Image.open(BytesIO(data))
    seen = []
    for frame in ImageSequence.Iterator(image):
        seen.append((frame.convert("RGBA").tobytes(), frame.info["duration"]))
    return seen


class PictureTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def file(self, data: bytes, name: str = "picture") -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def sent(self, data: bytes, name: str = "picture") -> Picture:
        """What is sent of it; nothing but pixels, whatever else is asked of it."""
        picture = prepare_picture(name, self.file(data))
        for secret in made.SECRETS:
            self.assertNotIn(secret, picture.data)
            self.assertNotIn(secret, picture.thumbnail)
        image = opened(picture.data)
        self.assertEqual(f"image/{image.format}".lower(), picture.type)
        self.assertEqual(image.size, (picture.width, picture.height))
        self.assertLessEqual(len(picture.thumbnail), MAX_THUMBNAIL)
        self.assertLessEqual(max(open_thumbnail(picture.thumbnail).size), THUMBNAIL_SIDE)
        return picture


class Sent(PictureTest):
    def test_the_fixtures_are_what_they_seem(self) -> None:
        """Otherwise nothing would have been removed."""
        files = b"".join((made.photo(icc=made.wide_profile()), made.drawing(), made.animation(), made.heic()))
        files += made.webp(icc=made.wide_profile()) + made.saved(made.scene(), "PNG", icc_profile=made.wide_profile())
        self.assertEqual([secret for secret in made.SECRETS if secret not in files], [])
        self.assertEqual(opened(made.photo()).getexif().get_ifd(0x8825)[1], "N")

    def test_a_photo_is_turned_and_tells_nothing(self) -> None:
        for orientation in range(1, 9):
            source = made.photo(orientation)
            picture = self.sent(source)
            right = ImageOps.exif_transpose(opened(source))
            self.assertEqual((picture.type, picture.width, picture.height), ("image/jpeg", *right.size))
            self.assertEqual(corners(opened(picture.data)), corners(right))
            self.assertEqual(corners(open_thumbnail(picture.thumbnail)), corners(right))
            self.assertLess(mean_difference(opened(picture.data), right), 0.01 if orientation == 1 else 2.5)

    def test_a_photo_that_is_turned_keeps_its_tables(self) -> None:
        """All but nothing is lost then; a quality of our own would lose something, or blow it up."""
        for orientation in (3, 6):
            for subsampling in (0, 2):
                source = made.photo(orientation, subsampling=subsampling, quality=83)
                picture, expected = opened(self.sent(source).data), tables(opened(source))
                if orientation == 6:
                    expected = [[table[8 * (at % 8) + at // 8] for at in range(64)] for table in expected]
                self.assertEqual(tables(picture), expected)
                self.assertEqual(get_sampling(picture), subsampling)
        exact = made.photo(6, subsampling=0)
        self.assertLess(mean_difference(opened(self.sent(exact).data), ImageOps.exif_transpose(opened(exact))), 0.25)

    def test_progressive_grey_and_odd_sizes(self) -> None:
        for image in (made.scene(), made.scene(83, 61), made.scene().convert("L")):
            for orientation in (1, 8):
                source = made.photo(orientation, image=image, progressive=True, quality=95)
                picture = opened(self.sent(source).data)
                self.assertEqual(picture.mode, image.mode)
                self.assertIn("progressive", picture.info)
                self.assertLess(mean_difference(picture, ImageOps.exif_transpose(opened(source))), 3)

    def test_a_png_with_alpha_is_exact(self) -> None:
        picture = self.sent(made.drawing())
        self.assertEqual(opened(picture.data).mode, "RGBA")
        self.assertEqual(opened(picture.data).tobytes(), made.transparent().tobytes())
        thumbnail = open_thumbnail(picture.thumbnail)
        self.assertEqual(thumbnail.mode, "RGBA")
        self.assertLess(thumbnail.getchannel("A").getextrema()[0], 20)

    def test_a_png_keeps_its_small_numbers_about_colour(self) -> None:
        plain = made.saved(made.scene(), "PNG")
        gamma, hidden = made.chunk(b"gAMA", b"\0\0\xb1\x8f"), made.chunk(b"sRGB", b"\0Geheimgasse 7")
        self.assertIn(gamma, self.sent(plain[:33] + gamma + plain[33:]).data)
        self.assertEqual(self.sent(plain[:33] + hidden + plain[33:]).data, plain)

    def test_pngs_of_every_kind(self) -> None:
        scene = made.scene()
        paletted = scene.quantize(60)
        deep = Image.frombytes("I;16", (32, 8), bytes(range(256)) * 2)
        for image, options in (
            (scene, {}),
            (scene, {"transparency": made.CORNERS[0]}),
            (paletted, {}),
            (paletted, {"transparency": bytes(range(0, 240, 4))}),
            (scene.convert("L"), {"transparency": 40}),
            (made.transparent().convert("LA"), {}),
            (scene.convert("1"), {}),
            (deep, {}),
        ):
            source = made.saved(image, "PNG", **options)
            for orientation in (1, 6):
                with self.subTest(mode=image.mode, options=list(options), orientation=orientation):
                    picture = opened(self.sent(made.with_secrets(source, orientation)).data)
                    self.assertEqual(picture.mode, image.mode)
                    expected = (
                        opened(source) if orientation == 1 else opened(source).transpose(Image.Transpose.ROTATE_270)
                    )
                    self.assertEqual(picture.tobytes(), expected.tobytes())
                    if image.mode != "I;16":
                        self.assertEqual(picture.convert("RGBA").tobytes(), expected.convert("RGBA").tobytes())

    def test_animations_keep_frames_durations_and_loops(self) -> None:
        for source, type_ in (
            (made.animation(), "image/gif"),
            (made.moving("PNG"), "image/png"),
            (made.moving("WEBP"), "image/webp"),
        ):
            picture = self.sent(source)
            self.assertEqual(picture.type, type_)
            self.assertEqual([duration for _, duration in shown(picture.data)], list(made.DURATIONS))
            self.assertEqual(shown(picture.data), shown(source))
            self.assertEqual(opened(picture.data).info["loop"], made.LOOPS)

    def test_webp_with_and_without_loss(self) -> None:
        cases: tuple[tuple[dict[str, Any], float], ...] = (({"lossless": True, "exact": True}, 0.0), ({}, 2.0))
        for options, most in cases:
            for orientation in (1, 6):
                for image in (made.scene(), made.transparent()):
                    source = made.webp(orientation, image=image, **options)
                    data = self.sent(source).data
                    self.assertFalse(data[12:16] == b"VP8X" and data[20] & 0b101100, "it says that there is metadata")
                    self.assertLess(len(data), 2 * len(source))
                    picture = opened(data)
                    self.assertEqual(picture.mode, image.mode)
                    right = ImageOps.exif_transpose(opened(source))
                    self.assertLessEqual(mean_difference(picture, right), most if orientation == 6 else 0)

    def test_colours_become_srgb(self) -> None:
        """Adobe RGB's red, which is outside of sRGB, and grey, which is the same in both."""
        image = Image.new("RGB", (64, 32), (128, 128, 128))
        image.paste((200, 60, 60), (0, 0, 32, 32))
        profile = made.wide_profile()
        translucent = image.copy()
        translucent.putalpha(77)
        for source, most in (
            (made.photo(1, image=image, icc=profile, subsampling=0), 3),
            (made.webp(image=image, icc=profile), 6),
            (made.saved(image, "PNG", icc_profile=profile), 1),
            (made.saved(translucent, "PNG", icc_profile=profile), 1),
            (made.saved(image.quantize(4), "PNG", icc_profile=profile), 1),
        ):
            picture = opened(self.sent(source).data).convert("RGBA")
            for at, expected in (((16, 16), (230, 58, 57)), ((48, 16), (128, 128, 128))):
                found = colour(picture, at)
                self.assertTrue(
                    all(abs(a - b) <= most for a, b in zip(found, expected, strict=True)), (found, expected)
                )
        picture = opened(self.sent(made.saved(translucent, "PNG", icc_profile=profile)).data)
        self.assertEqual(picture.getchannel("A").getextrema(), (77, 77))

    def test_a_profile_that_is_srgb_or_broken_changes_nothing(self) -> None:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        for profile in (srgb, made.wide_profile()[:200], b"no profile"):
            source = made.saved(made.scene(), "PNG", icc_profile=profile)
            self.assertEqual(opened(self.sent(source).data).tobytes(), made.scene().tobytes())
            source = made.photo(1, icc=profile)
            self.assertEqual(opened(self.sent(source).data).tobytes(), opened(source).tobytes())

    def test_one_and_sixteen_bits_stay_whatever_the_profile(self) -> None:
        darker = Image.frombytes("I;16", (256, 8), bytes(byte for at in range(255, -1, -1) for byte in (99, at)) * 8)
        for image in (made.scene().convert("1"), darker):
            source = made.saved(image, "PNG", icc_profile=made.wide_profile())
            picture = opened(self.sent(source).data)
            self.assertEqual((picture.mode, picture.tobytes()), (image.mode, image.tobytes()))
        thumbnail = open_thumbnail(self.sent(made.saved(darker, "PNG")).thumbnail)
        self.assertTrue(all(abs(255 - at - colour(thumbnail, (at, 4))[0]) < 9 for at in (5, 100, 190, 250)))

    def test_a_jpeg_that_is_not_of_the_usual_colours_stays_so(self) -> None:
        source = made.rgb_photo()
        self.assertLess(mean_difference(opened(source), made.scene()), 2)
        self.assertEqual(opened(self.sent(source).data).tobytes(), opened(source).tobytes())

    def test_cmyk_becomes_rgb(self) -> None:
        picture = opened(self.sent(made.photo(1, image=made.scene().convert("CMYK"))).data)
        self.assertEqual(picture.mode, "RGB")
        self.assertLess(mean_difference(picture, made.scene()), 4)

    def test_a_long_thin_and_a_noisy_picture_have_a_small_thumbnail(self) -> None:
        for image in (Image.new("RGB", (9000, 1), (9, 99, 9)), Image.effect_noise((900, 700), 200)):
            self.assertTrue(self.sent(made.saved(image, "PNG")).thumbnail)

    def test_without_a_known_ending_the_content_counts(self) -> None:
        for name, data, type_ in (
            ("drawing", made.drawing(), "image/png"),
            ("of.2026-11-22", made.photo(), "image/jpeg"),
            ("A.JFIF", made.photo(), "image/jpeg"),
            ("moving.apng", made.drawing(), "image/png"),
        ):
            self.assertEqual(self.sent(data, name).type, type_)

    def test_a_wrong_ending_is_refused_and_says_what_would_be_right(self) -> None:
        for name, data, right in (
            ("photo.jpg", made.drawing(), "photo.png"),
            ("notes.txt", made.photo(), "notes.jpg"),
            ("a.tar.gz", made.photo(), "a.tar.jpg"),
            ("moving.webp", made.animation(), "moving.gif"),
        ):
            with self.assertRaises(PictureError) as caught:
                self.sent(data, name)
            self.assertIn(f"call it {right};", caught.exception.message)
            self.assertIn("--original", caught.exception.message)


class Originals(PictureTest):
    def test_the_file_itself_is_sent_with_a_thumbnail(self) -> None:
        path = self.file(made.photo())
        picture = prepare_picture("a.jpg", path, original=True)
        self.assertEqual((picture.data, picture.type), (b"", "image/jpeg"))
        self.assertEqual((picture.width, picture.height), (made.HEIGHT, made.WIDTH))
        self.assertTrue(open_thumbnail(picture.thumbnail))
        self.assertEqual(path.read_bytes(), made.photo())

    def test_what_cannot_be_read_has_none(self) -> None:
        for data, type_ in (
            (made.heic(), "image/heic"),
            (made.png_bomb(), "image/png"),
            (b"", "application/octet-stream"),
            (b"words", "application/octet-stream"),
        ):
            picture = prepare_picture("a.jpg", self.file(data), original=True)
            self.assertEqual(picture, Picture(b"", type_, 0, 0, b""))

    def test_what_it_would_give_away(self) -> None:
        for data in (made.photo(), made.drawing(), made.webp(), made.heic(), made.exif()[6:]):
            told = "; ".join(warning_about(self.file(data)))
            for expected in (
                "(48.2082, 16.3738)",
                made.TAKEN,
                made.CAMERA,
                "serial number",
                made.PERSON,
                "maker's notes",
            ):
                self.assertIn(expected, told)
        told = "; ".join(warning_about(self.file(made.photo())))
        for expected in ("XMP", "IPTC", "a comment", "more pictures", "film"):
            self.assertIn(expected, told)
        self.assertIn("notes as text", "; ".join(warning_about(self.file(made.drawing()))))
        self.assertIn("a comment", "; ".join(warning_about(self.file(made.animation()))))
        told = "; ".join(warning_about(self.file(made.photo()[:1500])))
        self.assertIn("(48.2082, 16.3738)", told)
        self.assertEqual(len(warning_about(self.file(b"GIF89a"))), 1)
        self.assertEqual(warning_about(self.file(made.saved(made.scene(), "JPEG"))), ())
        self.assertEqual(warning_about(self.file(b"words")), ())

    def test_exif_that_is_damaged_or_malicious(self) -> None:
        for tiff in (b"words", b"MM"):
            data = made.with_exif(tiff)
            self.assertIn("(EXIF), which is damaged", "; ".join(warning_about(self.file(data))))
            picture = prepare_picture("a.jpg", self.file(data))
            self.assertEqual((picture.width, picture.height), (made.WIDTH, made.HEIGHT))
        exif = Image.Exif()
        exif[Base.Model], exif[Base.Orientation] = "Q9 \x1b[2J\x07" + "x" * 999, 77
        [told] = warning_about(self.file(made.with_exif(exif.tobytes().removeprefix(b"Exif\0\0"))))
        self.assertTrue(told.isprintable() and len(told) < 100, told)
