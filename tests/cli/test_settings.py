"""The table of settings: what is refused, in a file and in a variable, and what agents are handed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.wire import config, settings
from runyard.wire.errors import ConfigError

BAD = [
    ("min_free", "lots"), ("min_free", 5), ("max_file", "-1MB"), ("max_file", "1e999"), ("keep_code", "30"),
    ("keep_code", "sometimes"), ("keep_code", "-1d"), ("cpu_slots", -2), ("cpu_slots", True), ("cpu_slots", 1.5),
    ("grace", False), ("grace", -1.0), ("grace", float("nan")), ("trash_days", float("inf")), ("notify", "http://x"),
    ("notify", [1]), ("notify_on", ["done"]), ("link", ["data", 3]), ("autostart", "no"), ("require_clean", 1),
]  # fmt: skip
GOOD = [
    ("min_free", "0"), ("min_free", "1.5GiB"), ("keep_code", "always"), ("keep_code", "never"), ("keep_code", "0.5d"),
    ("cpu_slots", -1), ("grace", 0), ("notify_on", []), ("notify_on", ["killed", "lost"]), ("autostart", False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_value_out_of_its_domain_is_refused_where_it_is_read(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"here.toml: {name} is") as caught:
        settings.check({name: value}, "here.toml", settings.HOME)
    assert caught.value.hint == settings.BY_NAME[name].help


def test_the_line_that_is_wrong_is_named_in_the_section_that_is_ours(tmp_path: Path) -> None:
    text = '[tool.other]\nmax_file = 3\n[tool.runyard]\nlink = ["data"]\nmax_file = 3\n'
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"pyproject\.toml, line 5: max_file is 3, which is no size"):
        config.project_settings(str(tmp_path))


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_a_value_of_its_domain_is_taken(name: str, value: object) -> None:
    assert settings.check({name: value}, "here.toml", settings.HOME) == {name: value}


@pytest.mark.parametrize(
    ("name", "text"), [("min_free", "lots"), ("keep_code", "30"), ("cpu_slots", "-2"), ("notify_on", "done")]
)
def test_variables_have_the_same_domains(name: str, text: str) -> None:
    variable = settings.BY_NAME[name].variable
    with pytest.raises(ConfigError, match=variable):
        settings.from_environment({variable: text})


def test_patterns_are_those_that_are_looked_for(tmp_path: Path) -> None:
    two = r"M (\key) is (\value)"
    (tmp_path / "runyard.toml").write_text(f"pattern = ['{two}']\n")
    assert config.project_settings(str(tmp_path)) == {"pattern": [two]}
    lines = "%s\n%s\n" % (two, r"x{1,2}=(\value)")
    assert settings.from_environment({"RUNYARD_PATTERN": lines}) == {"pattern": [two, r"x{1,2}=(\value)"]}


@pytest.mark.parametrize(
    ("bad", "why"), [("M (", "unterminated"), ("loss", "needs one group"), (r"\q(.)", "bad escape")]
)
def test_the_pattern_that_is_wrong_is_named_with_the_reason(tmp_path: Path, bad: str, why: str) -> None:
    (tmp_path / "runyard.toml").write_text(f"ignore = []\npattern = ['(a)', '{bad}']\n")
    with pytest.raises(ConfigError, match=re.escape(f"runyard.toml, line 2: pattern: {bad} ") + ".*" + why):
        config.project_settings(str(tmp_path))


def test_defaults_are_valid() -> None:
    values = settings.defaults()
    assert settings.check(values, "defaults", settings.HOME) == values


@given(st.text(max_size=20))
def test_a_size_is_a_number_of_bytes_or_refused(text: str) -> None:
    try:
        assert settings.parse_size(text) >= 0
    except ValueError:
        pass


def test_an_agent_gets_its_settings_as_variables_that_mean_the_same() -> None:
    values = {**settings.defaults(), "cpu_slots": 3, "gpu_allow": ["Xorg", "kwin"], "grace": 0.5}
    variables = settings.agent_variables(values)
    assert settings.from_environment(variables) == {name: values[name] for name in settings.OF_AGENTS}
