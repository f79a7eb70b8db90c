"""The documents against the checkout: settings as the program prints them, and no reference that leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fastchat.config import example

CHECKOUT = Path(__file__).parent.parent
DOCUMENTS = (
    CHECKOUT / "README.md",
    CHECKOUT / "CHANGELOG.md",
    CHECKOUT / "fastchat/protocols/PROTOCOL.md",
    *sorted((CHECKOUT / "docs").rglob("*.md")),
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """What the headings of a document are called in links."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class Documents(SynchronousTestCase):
    def test_every_setting_is_there_as_the_program_prints_it(self) -> None:
        text = (CHECKOUT / "docs/configuration.md").read_text(encoding="utf-8")
        [block] = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        self.assertEqual(block, example())

    def test_links_lead_somewhere(self) -> None:
        for document in DOCUMENTS:
            for link in LINK.findall(document.read_text(encoding="utf-8")):
                if "://" in link:
                    continue
                path, _, anchor = link.partition("#")
                target = (document.parent / path).resolve() if path else document
                self.assertTrue(target.exists(), f"{document.name}: {link}")
                if anchor:
                    self.assertIn(anchor, anchors(target.read_text(encoding="utf-8")), f"{document.name}: {link}")

    def test_every_decision_is_in_the_list(self) -> None:
        folder = CHECKOUT / "docs/decisions"
        listed = set(LINK.findall((folder / "README.md").read_text(encoding="utf-8")))
        self.assertEqual(listed, {page.name for page in folder.glob("*.md")} - {"README.md"})

    def test_files_that_are_named_exist(self) -> None:
        """`tests/test_x.py`, `store/connections.py`, `wire.py` and the like: the end of some file's path."""
        tops = ("fastchat", "client", "sql", "tests", "docs")
        paths = {f"/{path.relative_to(CHECKOUT)}" for top in tops for path in (CHECKOUT / top).rglob("*.*")}
        for document in DOCUMENTS:
            for name in re.findall(r"`([\w./-]+\.(?:py|sql|md))`", document.read_text(encoding="utf-8")):
                self.assertTrue(any(path.endswith(f"/{name}") for path in paths), f"{document.name}: {name}")
