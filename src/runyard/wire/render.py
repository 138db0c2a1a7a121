"""A log as text for reading: progress bars collapsed to what a terminal would show in the end, bytes decoded.

Works on pieces as they come. Understood are carriage return, backspace, erasing in a line, moving within the line and up
by some lines, and colours (ECMA-48; XTerm's "ctlseqs"); everything else that steers a terminal is dropped, so that
printing somebody's log cannot steer the reader's.
"""

from __future__ import annotations

import codecs
import re

LINE_MAX = 16 * 1024
"""Characters after which an unfinished line is given out and can no longer be overwritten."""
ROWS_MAX = 60
"""Lines that a program may move up by and still overwrite."""
_ESCAPE_MAX = 4096
_STYLE_MAX = 256

_SPECIAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TOKEN = re.compile(
    "(?P<text>[^\x00-\x08\x0a-\x1f\x7f-\x9f]+)"
    "|\x1b\\[(?P<args>[0-?]*)[ -/]*(?P<final>[@-~])"
    "|\x1b[\\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\\\)"
    "|\x1b[ -/]*[0-OQ-WYZ\\\\`-~]"
    "|(?P<control>[\x00-\x1f\x7f-\x9f])"
)
_UNFINISHED = re.compile("\x1b(?:\\[[0-?]*[ -/]*|[\\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)\\Z")


_CREDENTIAL = re.compile(r"ry[at]_[0-9a-f]{32}(?:_[0-9a-f]{64}|[0-9a-f]{32})")


def mask(text: str) -> str:
    """Return text without Runyard's own credentials (`RUNYARD_TOKEN`), which a program may have printed."""
    return _CREDENTIAL.sub("***", text)


class _Row:
    """One line of the screen: its characters and, unless all are plain, the style of each."""

    __slots__ = ("styles", "text")

    def __init__(self) -> None:
        self.text = ""
        self.styles: list[str] | None = None

    def put(self, column: int, run: str, style: str) -> None:
        gap = column - len(self.text)
        if gap > 0:
            self.put(len(self.text), " " * gap, "")
        end = column + len(run)
        if style and self.styles is None:
            self.styles = [""] * len(self.text)
        self.text = self.text[:column] + run + self.text[end:]
        if self.styles is not None:
            self.styles[column:end] = [style] * len(run)

    def cut(self, column: int) -> None:
        self.text = self.text[:column]
        if self.styles is not None:
            del self.styles[column:]

    def show(self) -> str:
        if self.styles is None:
            return self.text
        parts, last, start = [], "", 0
        for index, style in enumerate(self.styles):
            if style != last:
                parts += [self.text[start:index], "\x1b[0m" if last else "", style]
                last, start = style, index
        return "".join(parts) + self.text[start:] + ("\x1b[0m" if last else "")


class Renderer:
    """Turns raw output into text, piece by piece. ``colors`` keeps colour sequences; without, none come out.

    What `feed` returns is final. The line in progress is held until it is finished; `pending` shows it.
    Bytes that are no UTF-8 become U+FFFD; a character cut in two by the end of a piece is held.
    """

    def __init__(self, colors: bool = False) -> None:
        self._colors = colors
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._escape = ""
        self._style = ""
        self._rows = [_Row()]
        self._row = 0
        self._column = 0
        self._window = 0
        """How many finished lines are held because the program has been seen to move up that far."""
        self._out: list[str] = []

    def feed(self, data: bytes) -> str:
        """Take in a piece of the log and return the text that it makes final, in whole lines unless they are very long."""
        text = self._escape + self._decoder.decode(data)
        self._escape = ""
        if not _SPECIAL.search(text):
            text = self._pass_lines(text)
        else:
            unfinished = _UNFINISHED.search(text, max(0, len(text) - _ESCAPE_MAX))
            if unfinished:
                self._escape = unfinished.group()
                text = text[: unfinished.start()]
        for token in _TOKEN.finditer(text):
            run, control, final = token.group("text", "control", "final")
            if run:
                self._write(run)
            elif control:
                self._control(control)
            elif final:
                self._sequence(final, token.group("args"))
        return self._take()

    def pending(self) -> str:
        """Return what is held: the unfinished line as it looks now, and lines that may still be overwritten."""
        return "\n".join(row.show() for row in self._rows)

    def finish(self) -> str:
        """Return all that is held; the log has ended."""
        tail = self._decoder.decode(b"", True)
        if tail:
            self._write(tail)
        text = self.pending()
        self._rows, self._row, self._column, self._escape = [_Row()], 0, 0, ""
        return self._take() + text

    def _take(self) -> str:
        text = "".join(self._out)
        self._out.clear()
        return text

    def _pass_lines(self, text: str) -> str:
        """Give out whole plain lines as they are; return the rest: the common case, made fast."""
        first, newline, rest = text.partition("\n")
        if not newline or self._style or self._window or len(self._rows) > 1:
            return text
        self._write(first)
        self._newline()
        lines, newline, rest = rest.rpartition("\n")
        self._out.append(lines + newline)
        return rest

    def _write(self, run: str) -> None:
        self._rows[self._row].put(self._column, run, self._style)
        self._column += len(run)
        if len(self._rows[self._row].text) > LINE_MAX:
            self._out.append("\n".join(row.show() for row in self._rows[: self._row + 1]))
            self._rows = [_Row(), *self._rows[self._row + 1 :]]
            self._row = self._column = 0

    def _newline(self) -> None:
        self._row += 1
        self._column = 0
        if self._row == len(self._rows):
            self._rows.append(_Row())
        while len(self._rows) - 1 > self._window:
            self._out.append(self._rows.pop(0).show() + "\n")
            self._row = max(0, self._row - 1)

    def _control(self, control: str) -> None:
        if control == "\n":
            self._newline()
        elif control == "\r":
            self._column = 0
        elif control == "\b":
            self._column = max(0, self._column - 1)

    def _sequence(self, final: str, args: str) -> None:
        """Obey one control sequence (ECMA-48 8.3: SGR m, EL K, CUU A, CUD B, CUF C, CUB D, CHA G)."""
        if final == "m":
            self._color(args)
            return
        number = int(args) if args.isdigit() and len(args) < 5 else 0
        step = number or 1
        if final == "K":
            self._erase(number)
        elif final == "A":
            self._window = max(self._window, min(step, ROWS_MAX))
            self._row = max(0, self._row - step)
        elif final == "B":
            self._row = min(len(self._rows) - 1, self._row + step)
        elif final == "C":
            self._column = min(LINE_MAX, self._column + step)
        elif final == "D":
            self._column = max(0, self._column - step)
        elif final == "G":
            self._column = min(LINE_MAX, step - 1)

    def _erase(self, which: int) -> None:
        row = self._rows[self._row]
        if which == 0:
            row.cut(self._column)
        elif which == 1:
            row.put(0, " " * min(len(row.text), self._column + 1), "")
        elif which == 2:
            row.cut(0)

    def _color(self, args: str) -> None:
        if not self._colors or args[:1] in ("<", "=", ">", "?"):
            return
        sequence = "\x1b[%sm" % args
        if args in ("", "0"):
            self._style = ""
        elif args.startswith("0;") or len(self._style) + len(sequence) > _STYLE_MAX:
            self._style = sequence
        else:
            self._style += sequence
