"""LaTeX tables: texts are never commands, numbers are right, the best is bold, and LaTeX takes it."""

from __future__ import annotations

import math
import re
import statistics
import subprocess
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.client.columns import Columns
from runyard.client.latex import Layout, render
from runyard.client.texmarkup import Number, column, escape, fixed, of_several
from runyard.client.texmarkup import statistics as summary
from runyard.wire.errors import NotFoundError, UsageError

FINITE = st.floats(allow_nan=False, allow_infinity=False)
MODERATE = st.floats(-1e6, 1e6)
COMMANDS = {
    r"\textbackslash{}": "\\", r"\{": "{", r"\}": "}", r"\$": "$", r"\&": "&", r"\#": "#", r"\%": "%", r"\_": "_",
    r"\textasciicircum{}": "^", r"\textasciitilde{}": "~", r"\textless{}": "<", r"\textgreater{}": ">",
    r"\textbar{}": "|", r"\textasciigrave{}": "`", "''": '"', "{[}": "[", "{]}": "]", "{*}": "*", "{}": "",
    r"\ensuremath{\alpha}": "\u03b1", r"\ensuremath{\Omega}": "Ω", r"\ensuremath{\pm}": "±",
}  # fmt: skip
TOKENS = re.compile("|".join(map(re.escape, sorted(COMMANDS, key=len, reverse=True))) + r"|(?P<plain>[^\\{}$&#%_^~])")
NASTY = st.text(st.sampled_from("\\{}$&#%_^~<>|`\"'-[]*,?! abÄ\u03b1Ω±日\n\t\x00\u2028"), max_size=30)


def printed(markup: str) -> str:
    """Return the text that LaTeX would print; fails for anything that is neither plain nor one of our commands."""
    text, place = "", 0
    while place < len(markup):
        found = TOKENS.match(markup, place)
        assert found is not None, f"{markup[place:]!r} is no plain text"
        text += found["plain"] or COMMANDS.get(found[0], found[0])
        place = found.end()
    return text


@given(NASTY)
def test_an_escaped_text_prints_as_it_was(text: str) -> None:
    markup = escape(text)
    assert printed(markup) == "".join(char if char.isprintable() else " " for char in text)
    assert "\n" not in markup and not re.search(r"--|,,", markup)
    assert not markup.startswith(("[", "*"))


@given(st.text(max_size=40))
def test_no_text_at_all_holds_a_line_end_or_an_open_group(text: str) -> None:
    markup = escape(text)
    assert len(markup.splitlines()) <= 1
    bare = re.sub(r"\\.", "", markup)
    assert bare.count("{") == bare.count("}") and not set("%&#$").intersection(bare)


@given(FINITE, st.integers(1, 17))
def test_a_number_is_rounded_to_its_digits(value: float, digits: int) -> None:
    (cell,) = column([Number(value)], digits)
    text = cell.text.strip("$")
    body, _, power = text.partition(r" \times 10^{")
    exponent = int(power.rstrip("}")) if power else 0
    shown = Decimal(body).scaleb(exponent)
    exact = Decimal(value)
    if value:
        magnitude = Decimal(("%.*e" % (digits - 1, abs(value))).partition("e")[2])
        step = Decimal(1).scaleb(int(magnitude) - digits + 1)
        if not power:
            step = min(step, Decimal(1))  # no digit before the point is left out
        assert abs(Fraction(shown) - Fraction(exact)) <= Fraction(step) / 2
        assert -shown.as_tuple().exponent == max(0, digits - 1 - int(magnitude)) or power  # type: ignore[operator]
    assert not body.startswith("-0") or Decimal(body) != 0


@given(MODERATE, st.integers(0, 8))
def test_rounding_is_to_the_nearest_and_ties_go_to_the_even_digit(value: float, decimals: int) -> None:
    wanted = Decimal(value).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_EVEN)
    assert Decimal(fixed(value, 0, decimals)) == wanted


@pytest.mark.parametrize(
    ("values", "digits", "shown"),
    [
        ([0.912, 0.916, 0.908], 3, r"0.912 \pm 0.004"), ([0.9], 3, "0.900"), ([9.996], 3, "10.0"), ([0.125], 2, "0.12"),
        ([0.375], 2, "0.38"), ([123456.7], 3, "123457"), ([0.0], 3, "0.00"), ([-0.0, 0.0], 3, r"0.00 \pm 0.00"),
        ([0.00012], 2, "0.00012"), ([0.000012], 2, r"1.2 \times 10^{-5}"), ([999999.6], 3, r"1.00 \times 10^{6}"),
        ([1.2e7, 1.4e7], 3, r"(1.30 \pm 0.14) \times 10^{7}"), ([1e-17, 0.3, -0.3], 3, r"0.000 \pm 0.300"),
        ([-0.001, -5.0, 5.0], 2, r"0.0 \pm 5.0"), ([math.nan, 1.0], 3, r"\mathrm{NaN}"), ([math.inf, 1.0], 3, r"\infty"),
        ([math.inf, -math.inf], 3, r"\mathrm{NaN}"), ([7], 3, "7"), ([3, 4], 3, r"3.50 \pm 0.71"),
        ([1e308, 1e308], 2, r"(1.0 \pm 0.0) \times 10^{308}"),
    ],
)  # fmt: skip
def test_numbers(values: list[float], digits: int, shown: str) -> None:
    (cell,) = column([of_several(values)], digits)
    assert cell.text == f"${shown}$"


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.999, 1.0, 0.9], ["0.999", "1.000", "0.900"]), ([99.9, 9.8, 100.0], ["99.90", "9.80", "100.00"]),
        ([0.11, 0.0265], ["0.1100", "0.0265"]),
        ([0.0, 0.5], ["0.000", "0.500"]), ([0.0001, 0.5], ["0.000100", "0.500"]),
        ([12.0, 1.2e7], ["12.0", r"1.20 \times 10^{7}"]),
        ([math.nan, 0.25], [r"\mathrm{NaN}", "0.250"]), ([3, 0.25], ["3", "0.250"]), ([], []),
    ],
)  # fmt: skip
def test_the_numbers_of_a_column_have_as_many_decimals(values: list[float], shown: list[str]) -> None:
    assert [cell.text for cell in column([Number(value) for value in values], 3)] == [f"${text}$" for text in shown]


@given(st.lists(MODERATE, min_size=2, max_size=9))
def test_mean_and_deviation(values: list[float]) -> None:
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    variance = sum((value - mean) ** 2 for value in exact) / (len(exact) - 1)
    found = summary(values)
    assert found[0] == float(mean)
    assert found[1] == pytest.approx(math.sqrt(variance), rel=1e-12, abs=1e-150)
    assert found[1] == pytest.approx(statistics.stdev(values), rel=1e-12, abs=1e-150)


def table(**values: list[Any]) -> Columns:
    """Return columns of finished runs; ``__`` in a name stands for a dot."""
    count = len(next(iter(values.values())))
    found: dict[str, list[Any]] = {
        "run.id": [f"run{number:09d}" for number in range(count)], "run.state": ["finished"] * count, "run.goal": [None] * count,
    }  # fmt: skip
    found.update((name.replace("__", "."), column) for name, column in values.items())
    return Columns(found, count)


SEEDS: dict[str, list[Any]] = {
    "params__model": ["mlp", "mlp", "cnn", "cnn", "cnn"], "params__seed": [1, 2, 1, 2, 3],
    "metrics__loss": [0.5, 0.7, 0.4, 0.3, 0.2], "metrics__acc": [0.8, 0.82, 0.9, None, 0.94],
}  # fmt: skip


def body(text: str) -> list[str]:
    """Return the lines between the rules."""
    return text.partition("\\midrule\n")[2].partition("\n\\bottomrule")[0].splitlines()


def test_groups_are_aggregated_and_the_best_is_bold() -> None:
    layout = Layout(["metrics.loss", "metrics.acc"], ["params.model"], ["params.seed"])
    text, notes = render(table(**SEEDS), layout, "runyard export")
    assert notes == []
    assert r"model & loss & acc & $n$ \\" in text
    assert r"\begin{tabular}{lrrr}" in text and "\\toprule" in text and "\\bottomrule" in text
    assert body(text) == [
        r"cnn & $\mathbf{0.300} \pm 0.100$ & $\mathbf{0.920} \pm 0.028$\,{\scriptsize ($n=2$)} & 3 \\",
        r"mlp & $0.600 \pm 0.141$ & $0.810 \pm 0.014$ & 2 \\",
    ]
    assert "% 5 runs:\n% run000000000 run000000001" in text and "% Written by: runyard export\n" in text


def test_the_goal_says_what_is_best() -> None:
    values = table(**SEEDS)
    values.values["run.goal"] = [None, "max loss", None, None, None]
    text, _ = render(values, Layout(["metrics.loss"], ["params.model"]), "")
    assert body(text) == [r"cnn & $0.300 \pm 0.100$ & 3 \\", r"mlp & $\mathbf{0.600} \pm 0.141$ & 2 \\"]


def test_what_is_shown_the_same_is_equally_good() -> None:
    values = table(params__m=["a", "b", "c", "d"], metrics__acc=[0.90001, 0.90002, 0.8, math.nan])
    text, _ = render(values, Layout([], ["params.m"], digits=2), "")
    assert [r"\mathbf" in line for line in body(text)] == [True, True, False, False]
    text, _ = render(table(params__m=["a"], metrics__acc=[0.9]), Layout([], ["params.m"]), "")
    assert r"\mathbf" not in text, "nothing to choose from"


def test_a_bare_name_is_a_metric_where_runs_have_one() -> None:
    values = table(acc=[0.5, 0.6], lr=[0.1, 0.2], params__m=["a", "b"])
    values.values.update({'metrics["acc"].count': [3, 3], 'metrics["lr"].count': [None, None]})
    text, _ = render(values, Layout(["acc", "lr"], ["params.m"]), "")
    assert body(text) == [r"a & $0.500$ & 0.1 & 1 \\", r"b & $\mathbf{0.600}$ & 0.2 & 1 \\"]
    assert {'metrics["acc"].count', 'metrics["lr"].count'} <= set(Layout(["acc", "lr"], ["params.m"]).fields())


def test_lines_stand_by_value_or_as_the_runs_come() -> None:
    values = table(params__x=[10, "b", 9, True, None, 1.5], metrics__acc=[0.1] * 6)
    layout = Layout([], ["params.x"])
    assert [line.split(" &")[0] for line in body(render(values, layout, "")[0])] == [
        "1.5",
        "9",
        "10",
        "b",
        "true",
        "--",
    ]
    kept = body(render(values, layout, "", ordered=True)[0])
    assert [line.split(" &")[0] for line in kept] == ["10", "b", "9", "true", "--", "1.5"]


def test_runs_without_groups_have_a_line_each_and_the_parameters_that_differ() -> None:
    values = table(params__lr=[0.1, 1e-05], params__same=[3, 3], metrics__loss=[0.25, 1 / 3])
    text, _ = render(values, Layout(), "")
    assert r"id & lr & loss \\" in text
    assert body(text) == [r"run000000000 & 0.1 & $\mathbf{0.250}$ \\", r"run000000001 & 1e-05 & $0.333$ \\"]


def test_what_may_be_wrong_is_said() -> None:
    values = table(
        params__model=["a"] * 3, params__seed=[1, 1, 2], params__lr=[0.1, 0.2, 0.1], metrics__acc=[1.0, 2.0, 3.0]
    )
    values.values["run.state"] = ["finished", "failed", "finished"]
    _, notes = render(values, Layout(["metrics.acc"], ["params.model"], ["params.seed"]), "")
    assert notes[0].startswith("1 of the runs has not finished")
    assert notes[1] == (
        "run000000000 and run000000001, of the line params.model a, have the same params.seed and differ in params.lr; "
        "both count"
    )


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(NotFoundError, match="no runs fit"):
        render(table(params__m=[]), Layout(), "")
    with pytest.raises(UsageError, match=r"params\.opt has several values"):
        render(table(params__m=["a", "a"], params__opt=["x", "y"]), Layout(["params.opt"], ["params.m"]), "")
    with pytest.raises(UsageError, match="--over needs --rows"):
        Layout(over=["params.seed"])
    with pytest.raises(UsageError, match="digits"):
        Layout(digits=0)
    with pytest.raises(UsageError, match="nothing to show"):
        render(table(params__m=["a", "a"]), Layout([], ["params.m"]), "")


def test_comments_cannot_be_left() -> None:
    text, _ = render(table(metrics__acc=[1.0]), Layout(["metrics.acc"]), "runyard export 'a\n\\evil\r\x85\u2028b'")
    assert [line for line in text.splitlines() if "evil" in line] == [r"% Written by: runyard export 'a \evil   b'"]


def test_same_titles_are_written_in_full() -> None:
    values = table(params__loss=["a", "b"], metrics__loss=[1.0, 2.0])
    values.values["metrics.loss.min"] = [0.5, 0.25]
    text, _ = render(values, Layout(["params.loss", "metrics.loss", "metrics.loss.min"]), "")
    assert r"params.loss & metrics.loss & loss (min) \\" in text


def compiled(text: str, place: Path) -> None:
    """Let pdfLaTeX make a page of it: it must end well."""
    document = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n%s\n\\end{document}\n" % text
    (place / "table.tex").write_text(document, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"],
        cwd=place, capture_output=True, text=True, errors="replace", timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert (place / "table.pdf").read_bytes().startswith(b"%PDF")


def test_latex_takes_it(require: Callable[[str], None], tmp_path: Path) -> None:
    require("pdflatex")
    texts = [
        "\\[x]{}$&#%_^~<>|`\"'*",
        "[1, 2]",
        "*",
        "--lr -- 5%",
        "größe Ångström ñ",
        "\u03b1βλΩ ± \u00d7 ≤ ∞ µ², \u0391\u03bf",
        "a\\\\b\nc\x00",
        "",
    ]
    count = len(texts)
    values = table(
        params__model=texts, params__seed=list(range(count)),
        metrics__loss=[0.1, 1e-9, 1e9, math.nan, math.inf, -math.inf, None, -0.5],
        metrics__n_steps=[1.0] * count,
    )  # fmt: skip
    values.values["metrics.val/acc_%"] = [0.5] * count
    for number, layout in enumerate((Layout(), Layout([], ["params.model"], ["params.seed"]))):
        place = tmp_path / str(number)
        place.mkdir()
        text, _ = render(values, layout, "runyard export '%s'" % texts[0])
        compiled(text, place)
