"""The small JSON reads and writes what the standard library's does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.wire import jsonlite

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_same_as_the_standard_library(value: Any) -> None:
    assert jsonlite.dumps(value) == json.dumps(value)
    assert jsonlite.loads((" \n" + json.dumps(value, indent=1) + " " * 9).encode()) == value


@given(st.binary(max_size=12) | st.text('[]{},:"0 1-.eEtrufalsn\\', max_size=10).map(str.encode))
def test_refuses_what_the_standard_library_refuses(data: bytes) -> None:
    try:
        value = json.loads(data.decode("utf-8"))
    except ValueError:
        with pytest.raises(ValueError):
            jsonlite.loads(data)
    else:
        assert repr(jsonlite.loads(data)) == repr(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"x", {1: 2}, {"a": {1}}])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        jsonlite.dumps(value)
