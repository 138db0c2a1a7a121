"""Whether a database file is as it was written, with nothing but the standard library."""

from __future__ import annotations

import os
import struct
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3

CHECK = struct.Struct("<I")
CHECK_AT, CHECKED_AT = 8, 12
"""Where in a block of points its CRC-32 is, and from where on it counts; see `runyard.store.blocks`."""
HAS_BLOCKS = "SELECT 1 FROM sqlite_master WHERE name = 'metric_blocks'"
BLOCKS = "SELECT runs.id, metric_blocks.data FROM metric_blocks JOIN runs ON runs.seq = metric_blocks.run_seq"
SHOWN = 10


def damage(place: str) -> str:
    """Return what is wrong with an SQLite database; ``""`` when it is sound."""
    import sqlite3
    from urllib.parse import quote

    try:
        connection = sqlite3.connect("file:%s?mode=ro" % quote(os.fsencode(place)), uri=True)
        try:
            said = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
            if said != ["ok"]:
                return "; ".join(said)
            runs = _with_damaged_points(connection)
        finally:
            connection.close()
    except sqlite3.Error as exc:
        return str(exc)
    more = ", …" if len(runs) > SHOWN else ""
    return "points of metrics of %d runs (%s%s)" % (len(runs), ", ".join(runs[:SHOWN]), more) if runs else ""


def _with_damaged_points(connection: sqlite3.Connection) -> list[str]:
    if connection.execute(HAS_BLOCKS).fetchone() is None:
        return []
    found = {str(run) for run, data in connection.execute(BLOCKS) if not _is_whole(data)}
    return sorted(found)


def _is_whole(data: bytes) -> bool:
    return len(data) >= CHECKED_AT and CHECK.unpack_from(data, CHECK_AT)[0] == zlib.crc32(memoryview(data)[CHECKED_AT:])
