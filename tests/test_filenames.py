"""What becomes of the names and types that peers give their files, and of the files when they get their names."""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from fastchat_client.filenames import (
    LONGEST,
    UNKNOWN_TYPE,
    clean_name,
    clean_type,
    free_path,
    guess_type,
    settle,
)
from tests.support import pictures

FRAGMENTS = some.sampled_from(
    (*pictures.NAMES_FROM_HELL, "con", ".", "-", " ", "aux.", "\u0301", ".tar.gz", "\u1e9b\u0323")
)
NAMES = some.one_of(some.text(max_size=40), some.lists(FRAGMENTS, max_size=5).map("".join))


class CleanNames(SynchronousTestCase):
    def test_what_is_harmless_stays_as_it_is(self) -> None:
        for name in (
            "photo.jpg",
            "Grüße aus Łódź (2).tar.gz",
            "日本語のファイル.txt",
            "a_b-c d.e",
            "مرحبا.pdf",
            "README",
            "x.1",
        ):
            self.assertEqual(clean_name(name), name)

    def test_what_is_not_is_changed_to_this(self) -> None:
        for name, clean in (
            ("../../../etc/passwd", "_._._etc_passwd"),
            ("C:\\autoexec.bat", "C__autoexec.bat"),
            ("notes.txt:hidden", "notes.txt_hidden"),
            (".bashrc", "bashrc"),
            ("-rf", "rf"),
            ("- .- x", "x"),
            ("trailing. . .", "trailing"),
            ("two\nlines\r\t.txt", "two lines .txt"),
            ("annual\u202egpj.exe", "annualgpj.exe"),
            ("zero\u200bwidth\u200d\ufeff.txt", "zerowidth.txt"),
            ("half\ud83d", "half"),
            ("\u0301accent", "accent"),
            ("e\u0301te\u0301.txt", "été.txt"),
            ("e\u200b\u0301", "é"),
            ("a\u2215b\uff0fc\u2044d\uff3ce", "a_b_c_d_e"),
            ("a..b...c. .d", "a.b.c.d"),
            ("con", "_con"),
            ("nul.tar.gz", "_nul.tar.gz"),
            ("Com1 .log", "_Com1 .log"),
            ("LPT³", "_LPT³"),
            ("console.log", "console.log"),
            ("com12", "com12"),
        ):
            self.assertEqual(clean_name(name), clean, repr(name))

    def test_nothing_left_is_called_file(self) -> None:
        for name in ("", ".", "..", " ", "\u3164", "\u200b", "\ud800", "- - .", "\x00", "\u0301"):
            self.assertEqual(clean_name(name), "file", repr(name))

    def test_a_long_name_is_cut_and_keeps_its_extension(self) -> None:
        self.assertEqual(clean_name("x" * 400 + ".jpeg"), "x" * 115 + ".jpeg")
        self.assertEqual(clean_name("é" * 100 + ".gz"), "é" * 58 + ".gz")
        self.assertEqual(clean_name("\U0001f600" * 60), "\U0001f600" * 30)
        self.assertEqual(clean_name("a." + "y" * 300), "a." + "y" * 118)
        self.assertEqual(clean_name("x" * 115 + " " + "y" * 99 + ".txt"), "x" * 115 + ".txt")

    @settings(deadline=None)
    @given(NAMES)
    def test_any_name(self, name: str) -> None:
        clean = clean_name(name)
        self.assertEqual(clean_name(clean), clean)
        self.assertEqual(unicodedata.normalize("NFC", clean), clean)
        self.assertTrue(1 <= len(clean.encode()) <= LONGEST)
        self.assertNotIn("..", clean)
        self.assertNotIn(clean[0], " .-")
        self.assertNotIn(clean[-1], " .")
        self.assertEqual(os.path.basename(clean), clean)
        kinds = {unicodedata.category(each) for each in clean if each != " "}
        self.assertFalse(kinds & {"Cc", "Cf", "Co", "Cs", "Cn", "Zs", "Zl", "Zp"}, kinds)
        self.assertFalse(set(clean) & set('/\\:*?"<>|'))
        self.assertNotIn(clean.split(".")[0].strip().lower(), ("con", "prn", "aux", "nul", "com1", "com³", "lpt9"))


class Places(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def part(self, content: bytes = b"new") -> Path:
        path = self.directory / ".it.part"
        path.write_bytes(content)
        return path

    def fail_with(self, call: str, number: int) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        self.patch(os, call, fail)

    def listed(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())

    def test_the_first_free_name(self) -> None:
        self.assertEqual(free_path(self.directory, "a.tar.gz").name, "a.tar.gz")
        (self.directory / "a.tar.gz").touch()
        os.symlink("nowhere", self.directory / "a.tar (1).gz")
        self.assertEqual(free_path(self.directory, "a.tar.gz").name, "a.tar (2).gz")
        (self.directory / "README").touch()
        self.assertEqual(free_path(self.directory, "README").name, "README (1)")

    def test_names_from_hell_stay_in_the_directory(self) -> None:
        placed = [
            settle(self.part(name.encode(errors="replace")), self.directory, name) for name in pictures.NAMES_FROM_HELL
        ]
        self.assertEqual(len(set(placed)), len(pictures.NAMES_FROM_HELL))
        self.assertEqual(self.listed(), sorted(path.name for path in placed))
        for path, name in zip(placed, pictures.NAMES_FROM_HELL, strict=True):
            self.assertEqual(path.parent, self.directory)
            self.assertEqual(path.read_bytes(), name.encode(errors="replace"))

    def test_nothing_is_overwritten(self) -> None:
        (self.directory / "a.txt").write_bytes(b"old")
        outside = self.directory.parent / f"{self.directory.name}-outside"
        os.symlink(outside.absolute(), self.directory / "a (1).txt")
        (self.directory / "a (2).txt").mkdir()
        path = settle(self.part(), self.directory, "a.txt")
        self.assertEqual((path.name, path.read_bytes()), ("a (3).txt", b"new"))
        self.assertEqual((self.directory / "a.txt").read_bytes(), b"old")
        self.assertFalse(outside.exists())
        self.assertEqual(self.listed(), ["a (1).txt", "a (2).txt", "a (3).txt", "a.txt"])

    def test_where_there_are_no_hard_links(self) -> None:
        (self.directory / "a.txt").write_bytes(b"old")
        os.symlink("nowhere", self.directory / "a (1).txt")
        self.fail_with("link", errno.EPERM)
        path = settle(self.part(), self.directory, "a.txt")
        self.assertEqual((path.name, path.read_bytes()), ("a (2).txt", b"new"))
        self.assertEqual((self.directory / "a.txt").read_bytes(), b"old")
        self.assertEqual(self.listed(), ["a (1).txt", "a (2).txt", "a.txt"])

    def test_what_fails_leaves_the_part_and_nothing_else(self) -> None:
        part = self.part()
        self.fail_with("link", errno.ENOSPC)
        self.assertRaises(OSError, settle, part, self.directory, "a.txt")
        self.assertEqual(self.listed(), [".it.part"])
        self.fail_with("link", errno.EPERM)
        self.fail_with("replace", errno.EIO)
        self.assertRaises(OSError, settle, part, self.directory, "a.txt")
        self.assertEqual(self.listed(), [".it.part"])

    def test_a_part_that_became_a_link_gets_no_name(self) -> None:
        os.symlink("/etc/passwd", self.directory / ".it.part")
        self.assertRaises(OSError, settle, self.directory / ".it.part", self.directory, "a.txt")
        self.assertEqual(self.listed(), [".it.part"])


class Types(SynchronousTestCase):
    def test_pictures_by_their_content(self) -> None:
        for data, type_ in (
            (pictures.photo(), "image/jpeg"),
            (pictures.drawing(), "image/png"),
            (pictures.animation(), "image/gif"),
            (pictures.webp(), "image/webp"),
            (pictures.heic(), "image/heic"),
        ):
            self.assertEqual(guess_type("lies.txt", data[:64]), type_)

    def test_everything_else_by_its_name(self) -> None:
        for name, type_ in (
            ("a.txt", "text/plain"),
            ("A.PDF", "application/pdf"),
            ("a.svg", "image/svg+xml"),
            ("a.tar.gz", "application/gzip"),
            ("a.b/c.zip", "application/zip"),
            ("no ending", UNKNOWN_TYPE),
            ("a.unheard-of", UNKNOWN_TYPE),
            ("text.png", UNKNOWN_TYPE),
            ("data:text/html,x", UNKNOWN_TYPE),
            ("", UNKNOWN_TYPE),
        ):
            self.assertEqual(guess_type(name, b"words"), type_, name)

    def test_what_a_peer_declares(self) -> None:
        for declared, type_ in (
            ("image/PNG", "image/png"),
            ("text/html; charset=utf-8", "text/html"),
            ("application/vnd.oasis.opendocument.text", "application/vnd.oasis.opendocument.text"),
            ("text/html\n", UNKNOWN_TYPE),
            ("text/\u202ehtml", UNKNOWN_TYPE),
            ("text", UNKNOWN_TYPE),
            ("a/b/c", UNKNOWN_TYPE),
            ("", UNKNOWN_TYPE),
            ("x/" + "y" * 300, UNKNOWN_TYPE),
        ):
            self.assertEqual(clean_type(declared), type_, repr(declared))

    @settings(deadline=None)
    @given(some.text(), some.binary(max_size=70))
    def test_any_name_and_content(self, name: str, head: bytes) -> None:
        self.assertEqual(clean_type(guess_type(name, head)), guess_type(name, head))
        self.assertEqual(clean_type(clean_type(name)), clean_type(name))
