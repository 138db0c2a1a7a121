"""Reading Markdown: code blocks, console sessions, links."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced code block."""

    language: str
    #: line of the opening fence, from 1
    line: int
    text: str


@dataclass(kw_only=True)
class Step:
    """One command of a console block, with the output that the page shows."""

    command: str
    line: int
    expected: list[str] = field(default_factory=list)


def code_blocks(markdown: str) -> list[Block]:
    """Return the fenced code blocks of a page, in order."""
    found, start, fence, language, lines = [], 0, "", "", list[str]()
    for number, line in enumerate(markdown.splitlines(), 1):
        opening = re.match(r"^(```+)\s*(\S*)", line)
        if not fence and opening:
            start, fence, language, lines = number, opening.group(1), opening.group(2), []
        elif fence and line.strip() == fence:
            found.append(Block(language=language, line=start, text="\n".join(lines)))
            fence = ""
        elif fence:
            lines.append(line)
    if fence:
        raise ValueError(f"line {start}: the code block does not end")
    return found


def console_steps(block: Block) -> list[Step]:
    """Return the commands of a console block: lines that begin with ``$ ``, continued by a backslash and ``> ``."""
    steps: list[Step] = []
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if line.startswith("$ "):
            steps.append(Step(command=line[2:], line=number))
        elif line.startswith("> ") and steps and not steps[-1].expected and steps[-1].command.endswith("\\"):
            steps[-1].command += "\n" + line[2:]
        elif steps:
            steps[-1].expected.append(line)
        else:
            raise ValueError(f"line {number}: output before the first command")
    return steps


VARYING = re.compile(
    r"(?P<any>…)"
    r"|(?P<placed>\b(?:assigned|running) on box [cg]pu0\b)"
    r"|(?P<slot>\b[cg]pu0\b)"
    r"|(?P<program>(?<!\S)/home/ada/\S+)"
    r"|(?P<id>\b(?=[a-z]*[2-7])[a-z2-7]{12}\b)"
    r"|(?P<commit>\b(?=[a-f]*[0-9])[0-9a-f]{7}\b)"
    r"|(?P<port>(?<=\d:)\d{4,5}\b)"
    r"|(?P<time>\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d|\d{8}-\d{4})"
    r"|(?P<quantity>\b\d+(?:\.\d+)?(?= ?(?:s|m|h|d|ms|B|kB|MB|GB)\b))"
    r"|(?P<decimal>(?<![\d.])\d+\.\d+(?![\d.]))"
)
PATTERNS = {
    "any": ".*?", "placed": r"(?:\w+ on \S+ [cg]pu\d+|queued: .+)", "slot": r"[cg]pu\d+", "program": r"/\S+",
    "id": "([a-z2-7]{12})", "commit": "[0-9a-f]{7}", "port": r"\d+", "time": r"[\d:-]+",
    "quantity": r"\d+(?:\.\d+)?", "decimal": r"\d+\.\d+",
}  # fmt: skip


def _pattern(line: str) -> str:
    """Return the regular expression of one line of a page."""
    text, parts, end = " ".join(line.split()), [""], 0
    for found in VARYING.finditer(text):
        parts += [re.escape(text[end : found.start()]), PATTERNS[found.lastgroup or "any"]]
        end = found.end()
    parts.append(re.escape(text[end:]))
    return "[ \\t]*" + "".join(parts).replace("\\ ", "[ \\t]+") + "[ \\t]*\n"


def matches(expected: list[str], actual: str) -> list[str] | None:
    """Return the ids in an output that is what a page shows, one for each id on the page; None when it is not.

    In the page ``…`` stands for anything within a line, a line ``...`` for any number of lines. What differs from one
    time to the next may differ: ids, commits, ports, dates, decimal fractions, and numbers before a unit; and so may what
    differs from one machine to the next: paths below ``/home/ada``, ``gpu0``, and ``assigned on box gpu0``, which is also
    what stands there while a run waits. Spaces at the end of lines, empty lines at the end and the width of columns do
    not count.
    """
    while expected and not expected[-1].strip():
        expected = expected[:-1]
    pattern = ""
    for line in expected:
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
            continue
        pattern += _pattern(line)
    found = re.fullmatch(pattern, actual.rstrip() + "\n" if actual.strip() else "")
    return None if found is None else list(found.groups())


def ids(text: str) -> list[str]:
    """Return the ids of runs that a page shows, in order."""
    return [found.group() for found in VARYING.finditer(text) if found.lastgroup == "id"]


def links(markdown: str) -> list[str]:
    """Return the targets of the links of a page, code left out."""
    text = re.sub(r"(?ms)^(```+).*?^\1\s*$", "", markdown)
    text = re.sub(r"`[^`\n]*`", "", text)
    return re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text) + re.findall(r"(?m)^\[[^\]]+\]:\s*(\S+)", text)


def anchors(markdown: str) -> set[str]:
    """Return the anchors of the headings of a page, as code hosts make them."""
    text = re.sub(r"(?ms)^(```+).*?^\1\s*$", "", markdown)
    headings = re.findall(r"(?m)^#+\s+(.*?)\s*$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
