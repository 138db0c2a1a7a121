"""The one channel that carries a program's standard output and standard error."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

ROWS, COLUMNS = 40, 120
"""Window of the terminal: what progress bars and tables fit themselves into."""
_OFLAG, _LFLAG = 1, 3


def open_output(terminal: bool) -> tuple[int, int, bool]:
    """Return ``(reader, writer, is a terminal)``; the reader does not block.

    Falls back to a pipe where the host has no terminal to give (no /dev/pts, or none left).
    """
    if terminal:
        try:
            reader, writer = _open_terminal()
        except OSError:
            terminal = False
    if not terminal:
        reader, writer = os.pipe()
    os.set_blocking(reader, False)
    return reader, writer, terminal


def _open_terminal() -> tuple[int, int]:
    r"""Open a pseudo-terminal that passes bytes on unchanged (termios(3): OPOST would turn ``\n`` into ``\r\n``)."""
    master, slave = os.openpty()
    try:
        attributes = termios.tcgetattr(slave)
        attributes[_OFLAG] &= ~termios.OPOST
        attributes[_LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    except (OSError, termios.error) as exc:
        os.close(master)
        os.close(slave)
        raise OSError(str(exc)) from exc
    return master, slave
