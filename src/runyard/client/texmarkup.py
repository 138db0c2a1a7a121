"""Texts and numbers in LaTeX: nothing that a user wrote is taken for a command, and numbers are rounded as they should be."""

from __future__ import annotations

import math

from runyard.wire.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}",
    '"': "''",  # babel makes a command of it in some languages
    "[": "{[}", "]": "{]}", "*": "{*}",  # in front of a line they would belong to the \\ of the one before
    "±": r"\ensuremath{\pm}", "\u00d7": r"\ensuremath{\times}", "·": r"\ensuremath{\cdot}", "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}", "≠": r"\ensuremath{\neq}", "≈": r"\ensuremath{\approx}", "∞": r"\ensuremath{\infty}",
    "→": r"\ensuremath{\rightarrow}", "∈": r"\ensuremath{\in}", "∇": r"\ensuremath{\nabla}", "µ": r"\ensuremath{\mu}",
    "°": r"\ensuremath{^\circ}", "²": r"\ensuremath{^2}", "³": r"\ensuremath{^3}", "\u2212": r"\ensuremath{-}",
}  # fmt: skip
_DOUBLED = ("--", ",,", "''", "'\"", "\"'", '""')
"""Side by side they would become another character."""
_LATIN = dict(zip("ALPHA BETA EPSILON ZETA ETA IOTA KAPPA MU NU OMICRON RHO TAU CHI".split(), "ABEZHIKMNOPTX"))
"""Capitals that look like Latin ones, for which LaTeX has no command."""
SMALL, LARGE = -4, 6
"""Powers of ten: numbers below the first, and from the second on, stand as a number times a power of ten."""
ALIKE = 2
"""Powers of ten by which the numbers of a column may differ and still have as many decimals."""


def escape(text: str) -> str:
    """Return LaTeX that prints this text, in text mode.

    Characters that LaTeX sets by itself or in math stand for those of Greek and some signs; others outside ASCII are kept:
    pdfLaTeX knows the Latin ones, XeLaTeX and LuaLaTeX know what the font has. Line ends and the like become spaces.
    """
    found, before = [], ""
    for char in text:
        if before + char in _DOUBLED:
            found.append("{}")
        before = char
        if not char.isprintable():
            found.append(" ")
        elif char.isascii():
            found.append(_SPECIAL.get(char, char))
        else:
            found.append(_SPECIAL.get(char) or _greek(char))
    return "".join(found)


def _greek(char: str) -> str:
    if not 0x391 <= ord(char) <= 0x3C9:
        return char
    import unicodedata

    alphabet, _, name = unicodedata.name(char, "").partition(" LETTER ")
    if not name or " WITH " in name or alphabet not in ("GREEK SMALL", "GREEK CAPITAL"):
        return char
    if name == "OMICRON" or (alphabet == "GREEK CAPITAL" and name in _LATIN):
        return _LATIN[name] if alphabet == "GREEK CAPITAL" else "o"
    command = {"FINAL SIGMA": "varsigma", "LAMDA": "lambda"}.get(name, name.lower())
    return r"\ensuremath{\%s}" % (command if alphabet == "GREEK SMALL" else command.title())


class Number:
    """A number for a table: ``deviation`` None: it is none of several; ``count``: how many, where that is to be shown."""

    def __init__(self, value: float, deviation: float | None = None, count: int | None = None) -> None:
        self.value = value
        self.deviation = deviation
        self.count = count

    def exponent(self, digits: int) -> int | None:
        """Return the power of ten of the first digit, once rounded; of mean or deviation, whichever is more; None of 0."""
        known = self.deviation is not None and math.isfinite(self.deviation)
        scale = max(abs(self.value), self.deviation if known and self.deviation else 0.0)
        if not scale or not math.isfinite(scale):
            return None
        return int(("%.*e" % (digits - 1, scale)).partition("e")[2])


class Cell:
    """One cell: its text; of a number also its value, its digits, and the power of ten behind them."""

    def __init__(self, text: str, value: float | None = None, shown: str = "", power: int = 0) -> None:
        self.text = text
        self.value = value
        self.shown = shown
        self.power = power

    def is_like(self, other: Cell) -> bool:
        """Tell whether both numbers are shown the same."""
        return (self.shown, self.power) == (other.shown, other.power)

    def bold(self) -> None:
        """Set the number in bold."""
        self.text = self.text.replace(self.shown, r"\mathbf{%s}" % self.shown, 1)


def of_several(values: Sequence[float], count: int | None = None) -> Number:
    """Return mean and sample standard deviation of numbers; one alone stays as it is."""
    if len(values) == 1:
        return Number(values[0], None, count)
    return Number(*statistics(values), count)


def statistics(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (n - 1; NaN of one value); NaN and infinities make them so, too."""
    import statistics as library

    odd = [float(value) for value in values if not math.isfinite(value)]
    if odd:
        return (odd[0] if odd.count(odd[0]) == len(odd) else math.nan), math.nan
    mean = library.mean(map(float, values))
    if len(values) < 2:
        return mean, math.nan
    try:
        return mean, library.stdev(map(float, values))
    except OverflowError:  # the square of a deviation, before Python 3.11
        return mean, math.inf


def column(numbers: Sequence[Number], digits: int) -> list[Cell]:
    """Return the cells of a column: numbers with at least so many significant digits, and as many decimals each.

    Where they differ by more than `ALIKE` powers of ten, each number has decimals of its own.
    """
    if not 1 <= digits <= 17:
        raise UsageError("%d digits cannot be shown" % digits, "1 to 17")
    found = [number.exponent(digits) for number in numbers if not isinstance(number.value, int)]
    exponents = [exponent for exponent in found if exponent is not None]
    alike = (
        exponents and max(exponents) - min(exponents) <= ALIKE and min(exponents) >= SMALL and max(exponents) < LARGE
    )
    decimals = max(0, digits - 1 - min(exponents)) if alike else None
    return [_cell(number, digits, decimals) for number in numbers]


def _cell(number: Number, digits: int, decimals: int | None) -> Cell:
    """Return one cell; ``decimals``: those of the column."""
    value, deviation = number.value, number.deviation
    note = r"\,{\scriptsize ($n=%d$)}" % number.count if number.count is not None else ""
    power = 0
    if isinstance(value, int):
        shown = "%d" % value  # it counts something
    elif not math.isfinite(value):
        shown = r"\mathrm{NaN}" if math.isnan(value) else r"\infty" if value > 0 else r"-\infty"
        deviation = None
    else:
        exponent = number.exponent(digits) or 0
        power = exponent if not SMALL <= exponent < LARGE else 0
        if decimals is None:
            decimals = max(0, digits - 1 - (exponent - power))
        shown = fixed(value, power, decimals)
    text = shown
    if deviation is not None:
        text += r" \pm " + (fixed(deviation, power, decimals or 0) if math.isfinite(deviation) else r"\infty")
    if power:
        text = (r"(%s) \times 10^{%d}" if deviation is not None else r"%s \times 10^{%d}") % (text, power)
    return Cell("$%s$%s" % (text, note), value, shown, power)


def fixed(value: float, power: int, decimals: int) -> str:
    """Return ``value / 10**power`` with so many decimals, rounded to the nearest, a tie to the even digit; no ``-0``."""
    import decimal

    with decimal.localcontext() as context:
        context.prec = 800  # the digits of the longest double
        scaled = decimal.Decimal(value).scaleb(-power)
        text = "{:.{}f}".format(scaled, decimals)
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text
