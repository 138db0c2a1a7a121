"""Metrics in lines of text: `key: value`, `key=value`, `loss 0.5`, one or several, behind whatever a logger puts first.

A word before a number is easily found; what takes the most care is what is *no* metric. In order: lines that begin like
code, a table or an exception are left alone, arguments of a call (`Dropout(p=0.1)`) are cut out, and a number must end
where it stops (`3:4`, `1.2.3`, `10.0.0.1:80`, `2026-01-01`, `0.1-0.5`, `epoch=3.ckpt` yield nothing). Then a line is
trusted when it has a step, or a known metric (`words.METRIC`), or nothing but names and numbers; in any other line
`dropout=0.1` is prose.
"""

from __future__ import annotations

import re

from runyard.capture import words
from runyard.capture.plans import MARK, Item, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Span = tuple[int, int]

PREFIXES = 8
"""How many parts the prefix of a logger may have."""
COLUMN = 4
"""More characters between name and number are a table."""
NUMBERS = 250
"""A line with more is a row of some table, or a printed array."""

VALUE = r"(?:%s|[-+]?(?:[nN][aA][nN]|[iI][nN][fF](?:inity)?)(?!\w))" % MARK
_UNIT = r"(?:\s?%|\s?(?:ms|us|µs|s|secs?|seconds)|(?![kKMGTB]/)\w*/s(?:ec|tep)?|s/\w+|x|[KMGT]i?B(?:/s)?)(?![\w/.:])"
_ITEM = re.compile(
    r"(?<![\w./@&?$\"'`<\-\\])(?P<key>[^\W\d][\w./@%\-]*(?:\[[\w.]+\])?)(?P<paren>\s?\([\w %/.]{1,20}\))?"
    r"(?P<gap>\s*[:=]\s*|\s+)(?P<value>VALUE)(?P<of>/[0-9]+(?![\w.]))?(?:UNIT)?"
    r"(?=$|[\s,;|)\]}±(]|\.(?:\s|$))(?!\s*[x\u00d7*/:~]\s?MARK|\s-\s?MARK)".replace("VALUE", VALUE)
    .replace("MARK", MARK)
    .replace("UNIT", _UNIT)
)
_BEFORE = re.compile(r"(?:^|[\s|,;:>\])(])((?:[^\W\d][\w'@/\-]* ){1,4})$")
_STEP = re.compile(
    (
        r"(?i)(?<![\w.\-/])(?P<word>(?:global|trainer/global)[ _]step|num_updates|total_timesteps|step|iteration|iter|itr|"
        r"batch|update|epoch|ep|episode|round)(?:\(\w+\))?\s*[:=#\-]?\s*\[?\s*(?P<at>MARK)(?:\s*(?:/|of)\s*(?P<total>MARK|[0-9]+))?"
        r"(?![\w.%/]|-\w|\s?[x\u00d7*:]\s?MARK)\]?"
        r"(?:[\s,:]*\[\s*(?P<at2>MARK)\s*/\s*(?P<total2>MARK|[0-9]+)(?:\s\(MARK%\))?\]"
        r"|:?\s+(?P<at3>MARK)\s/\s(?P<total3>MARK)(?=\s))?"
    ).replace("MARK", MARK)
)
_FIRST_STEP = re.compile(r"\s*(?:\[%s\]|%s:)\s+(?=[^\W\d])" % (MARK, MARK))
_LAST_STEP = re.compile(r"(?<!\s)\s+\((?:step\s+)?%s\)$" % MARK)
_ROLE = re.compile(
    r"(?i)(?<![\w./\-])(train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?|eval(?:uation)?|dev)"
    r"(?:[ _](?:set|results?|metrics|phase))?(?:\s?[:\])|](?!\s*[\x01=])|\s-\s|\s?>|(?=\s(?:epoch|step|iter)))"
)
_LEVEL = r"(?:DEBUG|INFO|WARN(?:ING)?|ERROR|CRITICAL|FATAL|TRACE|SUCCESS)\b"
_PREFIX = re.compile(
    (
        r"\[(?:[^\[\]]*(?:MARK[:/-]MARK|LEVEL)[^\[\]]*|(?:rank|gpu|cuda:)\s?(?:\d+|MARK))\]:?\s*"
        r"|(?:(?:[A-Z][a-z]{2} +)?MARK[-/ ]MARK[-/ ]MARK[T ,]*)?(?:T?\d\d|MARK):MARK(?::MARK)?(?:[.,]MARK)?"
        r"(?:Z|[+-]MARK(?::MARK)?)?,?\s+"
        r"|[IWEF]\d{4} [^\]]*\]\s*"
        r"|[\w.]+\s*[-|:\s]\s*LEVEL\s*(?:[-|:]\s+|\s)"
        r"|(?:LEVEL|info|warning|error)(?:\s*[:\]|-](?!MARK)\s*(?:[\w.]+:(?!\s*MARK))?|\s+)\s*"
        r"|[-|:]\s+"
    )
    .replace("LEVEL", _LEVEL)
    .replace("MARK", MARK)
)
_LOGGER = re.compile(r"(?:[\w.]+(?::[\w.<>]+)*(?::MARK)?|[\w./]+\.py:MARK)\s*(?:-|\|)\s+".replace("MARK", MARK))
_NAMED = re.compile(r"[\w.]+\s*[-|:\s]\s*" + _LEVEL)
_WRAPPED = re.compile(
    (
        r"(?<![\w.])(?:\w+\.)?(?:float|int|bfloat|[tT]ensor|[aA]rray)[0-9]*\(\s*(?:\[(?P<one>VALUE)\]|(?P<plain>VALUE))"
        r"\s*(?:,\s*\w+=[^()]*(?:\(\)[^()]*)?)?\)"
    ).replace("VALUE", VALUE)
)
HIDDEN = "\ud800"
"""Stands for a number in what is printed around another one: ``tensor(0.5, device='cuda:0')``; in no decoded text."""
_SUMMARY = re.compile(r"\s*\*\s+(?=Acc@)")
"""Begins what the example of PyTorch for ImageNet, and what is made after it, prints at the end of a validation."""
_CUT = re.compile(r"(?<=[\w\]])\([^()]*[=,:][^()]*\)?|(?<!\w)\w{1,12}://\S+")
_PAREN = re.compile(r"\([^()]*\)")
_WORD = re.compile(r"[^\W\d_]{2,}")


def prefix_end(shape: str) -> int:
    """Return where the line begins behind time, level, rank and name of a logger."""
    end = 0
    for _ in range(PREFIXES):
        found = _PREFIX.match(shape, end) or (_LOGGER.match(shape, end) if end else None)
        if found is None or (_ROLE.match(shape, end) and not _NAMED.match(shape, end)):
            break
        end = found.end()
    return end


def read(shape: str, start: int) -> tuple[list[Item], list[Step]]:
    """Return the metrics and counters in the text of a shape from ``start`` on."""
    if shape.count(MARK) > NUMBERS:
        return [], []
    text = shape[:start] + _WRAPPED.sub(_unwrapped, shape[start:])
    text = _CUT.sub(lambda found: re.sub("[^%s%s]" % (MARK, HIDDEN), "\x02", found.group()), text)
    steps, taken = _steps(text, start)
    found = _candidates(text, start, taken, bool(steps))
    if not found:
        return [], steps
    items = _trusted(text, start, found, steps, taken)
    if items and not steps:
        steps = _outer_step(text, start, found)
    return items, steps


def _unwrapped(found: re.Match[str]) -> str:
    value = found.group("one") or found.group("plain")
    return value + ")" + HIDDEN * (found.group().count(MARK) - value.count(MARK))


def has_prose(shape: str, start: int) -> bool:
    """Tell whether there are words beside the counters of a line."""
    return _prose(shape, start, _steps(shape, start)[1])


class _Candidate:
    """A number with a name before it."""

    __slots__ = ("item", "known", "loose", "span")

    def __init__(self, item: Item | None, known: bool, loose: bool, span: Span) -> None:
        self.item = item
        self.known = known
        self.loose = loose
        self.span = span


def _index(text: str, position: int) -> int:
    """Return the number in the line of the mark at a position."""
    return text.count(MARK, 0, position) + text.count(HIDDEN, 0, position)


def _steps(text: str, start: int) -> tuple[list[Step], list[Span]]:
    steps: list[Step] = []
    taken = []
    for found in _STEP.finditer(text, start):
        word = found.group("word").lower()
        epoch = word in ("epoch", "ep")
        is_global = "global" in word or word in ("num_updates", "total_timesteps")
        steps.append(_step("epoch" if epoch else "global" if is_global else "step", text, found, "at", "total"))
        taken.append(found.span())
        for at, total in (("at2", "total2"), ("at3", "total3")):
            if epoch and found.group(at):
                steps.append(_step("step", text, found, at, total))
    return steps, taken


def _step(word: str, text: str, found: re.Match[str], at: str, total: str) -> Step:
    index, of = _index(text, found.start(at)), found.group(total)
    if of is None:
        return Step(word, index)
    if of == MARK:
        return Step(word, index, 0, _index(text, found.start(total)))
    return Step(word, index, int(of[:18]))


def _candidates(text: str, start: int, taken: Sequence[Span], stepped: bool) -> list[_Candidate]:
    found: list[_Candidate] = []
    roles = [(role.end(), role.group(1)) for role in _ROLE.finditer(text, start)]
    summary = _SUMMARY.match(text, start)
    if summary:
        roles.insert(0, (summary.end(), "test"))
    last = start
    for match in _ITEM.finditer(text, start):
        if match.group("value") != MARK and match.group("key").lower() in words.STOP:
            continue  # `number of nan iterations: 0`
        if any(begin < match.end() and match.start() < end for begin, end in taken):
            last = match.end()
            continue
        edge = max([last] + [end for _, end in taken if end <= match.start()])
        edge = max([edge] + [end for end, _ in roles if end <= match.start()])
        role = next((name for end, name in reversed(roles) if end <= match.start()), "")
        found.append(_candidate(text, match, edge, role, stepped))
        last = match.end()
    return found


def _candidate(text: str, match: re.Match[str], edge: int, role: str, stepped: bool) -> _Candidate:
    key, gap = match.group("key"), match.group("gap")
    before = _BEFORE.search(text[edge : match.start()])
    spoken = before.group(1).split() if before else []
    whole = before is not None and text[edge : edge + before.start(1)].rstrip().endswith("|")
    phrase = " ".join([*spoken, key]) if whole else _phrase(spoken, key)
    name = words.normalised(phrase + (match.group("paren") or ""))
    known = bool(words.METRIC.search(phrase)) and not words.NO_METRIC.match(name)
    spaced = not gap.strip()
    item: Item | None = None
    if match.group("of") and not known:
        pass  # `done: 3/10`
    elif _is_name(phrase, name) and (not spaced or known or (stepped and _begins(text, edge, match.start()))):
        tight = gap == ":" and not stepped
        environment = key.isupper() and (gap == "=" or "_" in key)
        item = _item(
            text, match, words.in_role(role, name), (spaced and not (known and stepped)) or tight or environment
        )
    loose = " " in phrase or len(gap) > COLUMN or gap[0] == "\t" or not gap.strip()
    begin = match.start() - (len(phrase) - len(key) if before else 0)
    return _Candidate(item, known and item is not None, loose, (begin, match.end()))


def _phrase(before: list[str], key: str) -> str:
    """Return the words that make the name: those before the key, from the last one on that can be in no name."""
    for at in range(len(before) - 1, -1, -1):
        if before[at].lower() in words.STOP:
            before = before[at + 1 :]
            break
    return " ".join([*before, key])


def _is_name(phrase: str, name: str) -> bool:
    return bool(name) and len(name) < 200 and phrase.lower() not in words.STOP and not words.NO_METRIC.match(name)


def _begins(text: str, edge: int, at: int) -> bool:
    """Tell whether a name begins a part of the line: after a separator or two spaces."""
    between = text[edge:at]
    return between.endswith((", ", "| ", "; ", "- ", ": ", "\t", "  ", ",", "|", "* ")) or not between


def _item(text: str, match: re.Match[str], name: str, pointed: bool) -> Item:
    if match.group("value") != MARK:
        return Item(name, -1, float(match.group("value")))
    of = match.group("of")
    divisor = float(of.strip(" /")) if of else 0.0
    return Item(name, _index(text, match.start("value")), pointed=pointed and not of, of=divisor)


def _trusted(text: str, start: int, found: list[_Candidate], steps: list[Step], taken: Iterable[Span]) -> list[Item]:
    """Return those of the candidates that the rest of the line speaks for, each name once."""
    known = any(one.known for one in found)
    if not known and not steps:
        if any(one.loose or one.item is None for one in found) or _prose(text, start, [one.span for one in found]):
            return []
        if len(found) == 1 and (text[:1].isspace() or text.rstrip().endswith(",")):
            return []  # a line of some structure that is printed over several
    items: dict[str, Item] = {}
    for one in found:
        if one.item is not None and (one.known or steps or not one.loose):
            items.setdefault(one.item.name, one.item)
    return list(items.values())


def _prose(text: str, start: int, spans: Iterable[Span]) -> bool:
    """Tell whether there are words or other numbers beside the names."""
    rest, last = [], start
    first = _FIRST_STEP.match(text, start)
    if first:
        last = first.end()
    for begin, end in sorted(spans):
        rest.append(text[last:begin])
        last = end
    rest.append(text[last:])
    left = _PAREN.sub(" ", " ".join(rest))
    return MARK in left or bool(_WORD.search(words.NEUTRAL.sub(" ", _ROLE.sub(" ", left))))


def _outer_step(text: str, start: int, found: list[_Candidate]) -> list[Step]:
    """Return the step of `[10] logloss: 0.5` (XGBoost), `10: learn: 0.5` (CatBoost) and `loss: 0.5 (step 10)` (Guild)."""
    first = _FIRST_STEP.match(text, start)
    if first:
        return [Step("step", _index(text, text.index(MARK, first.start())))]
    last = _LAST_STEP.search(text)
    if last and len(found) == 1 and found[0].span[1] <= last.start():
        return [Step("step", _index(text, text.index(MARK, last.start())))]
    return []
