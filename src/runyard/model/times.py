"""Times and durations as people write them in a query."""

from __future__ import annotations

import datetime as dt
import re
from typing import NamedTuple

from runyard.wire.settings import parse_time
from runyard.wire.states import TIMES_US

_UNIT = re.compile(r"\s*(seconds?|secs?|minutes?|mins?|hours?|days?|weeks?)\b")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
HOW = 'times: "2026-01-31", "2026-01-31 09:30", "2h ago", "today"; without a zone they are the server\'s local time'


class Moment(NamedTuple):
    """A time, or a day: microseconds since 1970 UTC, from ``start`` up to but not with ``end``."""

    start: int
    end: int


def parse_moment(text: str, now_us: int) -> Moment:
    """Return the time of ``2026-01-31`` (all of that day), ``2026-01-31T09:30Z``, ``2h ago``, ``now``, ``today``, ``yesterday``.

    Raises:
        ValueError: it is none.
    """
    words = text.strip().lower()
    if words == "now":
        return Moment(now_us, now_us + 1)
    if words in ("today", "yesterday"):
        today = dt.datetime.fromtimestamp(now_us // 1_000_000, dt.UTC).astimezone().date()
        return _day(today - dt.timedelta(days=words == "yesterday"))
    if words.endswith(" ago"):
        then = now_us - round(parse_duration(words.removesuffix(" ago")) * 1e6)
        return Moment(then, then + 1)
    try:
        if _DAY.fullmatch(words):
            return _day(dt.date.fromisoformat(words))
        start = _us(dt.datetime.fromisoformat(text.strip()))
    except OverflowError as exc:
        raise ValueError(str(exc)) from exc
    return Moment(start, start + 1)


def _day(date: dt.date) -> Moment:
    return Moment(
        _us(dt.datetime.combine(date, dt.time())), _us(dt.datetime.combine(date + dt.timedelta(days=1), dt.time()))
    )


def _us(moment: dt.datetime) -> int:
    """Return microseconds since 1970; a time without a zone is local."""
    aware = moment if moment.tzinfo is not None else moment.astimezone()
    found = (aware - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    if not TIMES_US[0] <= found <= TIMES_US[1]:
        raise ValueError("beyond the years 1 to 9999")
    return found


def parse_duration(text: str) -> float:
    """Return seconds for ``90``, ``2h``, ``1h30m``, ``3 days``; raises ValueError."""
    short = _UNIT.sub(lambda unit: unit[1][0], text.lower())
    return parse_time("".join(short.split()))
