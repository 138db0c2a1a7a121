"""The reference pages say what the code says."""

from __future__ import annotations

import pytest

from runyard.wire.settings import RESERVED_VARIABLES, SETTINGS
from tools import reference


@pytest.mark.parametrize("name", ["cli.md", "settings.md"])
def test_the_page_is_fresh(name: str) -> None:
    assert name not in reference.stale(reference.pages()), "run `make docs`"


def test_every_setting_and_every_variable_is_in_the_reference() -> None:
    page = reference.settings_page()
    for setting in SETTINGS:
        assert f"| `{setting.name}` | `{setting.variable}` |" in page
    for variable in RESERVED_VARIABLES - {"RUNYARD_CI"}:
        assert f"`{variable}`" in page
