"""Links between pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.blocks import anchors, links

TOP = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*TOP.glob("*.md"), *TOP.glob("requirements/*.md"), *TOP.glob("docs/**/*.md"), *TOP.glob("examples/**/*.md")]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in links(page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / unquote(path)).resolve() if path else page
        assert target.exists(), f"{page}: {link}"
        assert target.is_relative_to(TOP), f"{page}: {link} leaves the project"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page}: {link}"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/how-it-works.md", "docs/protocol.md"])
def test_modules_that_a_page_names_exist(page: str) -> None:
    named = set(re.findall(r"`((?:\w+/)+\w+\.(?:py|c))`", (TOP / page).read_text(encoding="utf-8")))
    missing = {name for name in named if not (TOP / name).exists() and not (TOP / "src" / "runyard" / name).exists()}
    assert named
    assert missing == set()
