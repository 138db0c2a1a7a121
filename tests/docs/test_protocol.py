"""The page about the protocol names every request that the server answers, with its query, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from runyard.server import browser
from runyard.server.app import create_api
from runyard.testing.stage import ME
from tests.store.backends import make_stage

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
Requests = dict[tuple[str, str], set[str]]


def general(path: str) -> str:
    """Return a path with the names of its parameters left out."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def documented() -> Requests:
    """Return ``{(method, path): names of the query}`` as the page has them; a request may stand there several times."""
    found: Requests = {}
    for method, target in re.findall(r"`(GET|PUT|POST|PATCH|DELETE) (/[^\s`]*)", PAGE.read_text(encoding="utf-8")):
        path, _, query = target.partition("?")
        names = re.findall(r"(\w+)=", query)
        found.setdefault((method, general(path)), set()).update(names)
    return found


def answered() -> Requests:
    """Return the same of the server."""
    schema = create_api(cast("Any", None)).openapi()
    found = {
        (method.upper(), general(path)): {item["name"] for item in about.get("parameters", ()) if item["in"] == "query"}
        for path, methods in schema["paths"].items()
        for method, about in methods.items()
    }
    for route in browser.router.routes:
        for method in cast("Any", route).methods - {"HEAD"}:
            found[method, general(cast("Any", route).path)] = set()
    found["GET", "/openapi.json"] = set()
    return found


def test_the_page_has_every_request_and_no_other() -> None:
    assert documented() == answered()


def test_the_page_has_every_field_of_a_run_and_no_other(home: Path) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("**Run** (answer")[2].partition("## For agents")[0]
    prose, _, block = section.partition("```\n")
    named = set(re.findall(r"`(\w+)`", prose)) | set(re.findall(r'"(\w+)"', re.sub(r"\{[^{}]*\}", "", block[1:])))
    stage = make_stage(home, f"sqlite:///{home / 'yard.db'}")
    run = stage.yard.run(stage.submit(), ME)
    stage.close()
    assert set(run) == named - {"here", "thinned", "trashed", "gone"}
