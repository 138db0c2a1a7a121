"""The server's log: plain lines with UTC time, level and the number of the request."""

from __future__ import annotations

import contextvars
import logging
import logging.handlers
import sys
import time

request_number: contextvars.ContextVar[str] = contextvars.ContextVar("request_number", default="-")
MAX_BYTES = 5_000_000
FILES = 3
_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s [%(request)s] %(message)s"


class _Formatter(logging.Formatter):
    """Times in UTC; the number of the request that a line belongs to, ``-`` for none."""

    def __init__(self) -> None:
        super().__init__(_FORMAT, "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        record.request = request_number.get()
        return super().format(record)


def line(level: str, text: str) -> str:
    """Return one line in the log's form, for what is said before or after the log is open."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return f"{stamp}.{int(now % 1 * 1000):03d}Z {level:<7} [-] {text}\n"


def start(path: str, foreground: bool) -> logging.Handler:
    """Send all log records to a file that is rotated by size, and to stderr too when in the foreground."""
    handler: logging.Handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=MAX_BYTES, backupCount=FILES - 1, encoding="utf-8", errors="backslashreplace"
    )
    handlers = [handler, logging.StreamHandler(sys.stderr)] if foreground else [handler]
    root = logging.getLogger()
    for each in handlers:
        each.setFormatter(_Formatter())
        root.addHandler(each)
    root.setLevel(logging.INFO)
    for chatty in ("uvicorn", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return handler
