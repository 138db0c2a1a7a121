"""The collector: one process beside each attempt that looks at the run from outside, for as long as it takes.

It finds metrics in what the run prints and in the files that it writes, the data that it reads, and what it uses of the
machine. It is a process of its own so that nothing it meets (a pattern that never ends, a file of a terabyte) can hold up
the agent or the run; if it dies, another one goes on from the positions in its spool, with nothing lost and nothing twice.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.agent.sources import Source
    from runyard.client.spool import Message, SpoolWriter

NICE, LATER_NICE = 5, 14
"""While the run goes on, and added to that once all that is left is hashing."""
FIRST_WAIT_S = 0.1
WAIT_S = 1.0
"""Between turns: short at first, so that something is seen of a run that ends at once."""
LOCK = "collector.lock"
STARTED, NOT_STARTED = b"+", b"-"
LARGE = 1 << 20
"""Bytes of an attachment that is a record of its own: should the collector be killed before the next one, it comes twice."""
CAUGHT_UP = "collected"
"""Name of the file that says that everything but hashes of data has been looked at."""


class Collector:
    """One attempt, from the start of its program until everything about it is known."""

    def __init__(
        self, directory: str, facts: dict[str, Any], writer: SpoolWriter, sources: list[Source], number: int
    ) -> None:
        """``number``: of this collector among those of the attempt, from 1."""
        self._number = number
        self._directory = directory
        self._facts = facts
        self._writer = writer
        self._sources = sources
        self._said = {source.name: source.state() for source in sources}

    def run(self) -> None:
        """Look until the run is over, then once more."""
        from runyard.agent import launch
        from runyard.wire import files

        wait = FIRST_WAIT_S
        while True:
            over = not launch.is_supervised(self._directory) and self._has_begun()
            for source in self._sources:
                self.turn(source, over)
            if over and not any(source.behind and not source.failed for source in self._sources):
                break
            if over:
                continue
            self._sleep(wait)
            wait = min(WAIT_S, wait * 2.0)
        lasting = {source.name: source.state() for source in self._sources if source.lasting and not source.failed}
        try:
            files.write_json(self._facts["kept"], lasting)
            files.write_json(os.path.join(self._directory, CAUGHT_UP), True)
        except OSError:
            pass  # the agent then waits a moment longer
        _be_nice(LATER_NICE)
        for source in self._sources:
            while source.has_more() and not source.failed and os.path.exists(self._directory):
                self.turn(source, True)

    def _has_begun(self) -> bool:
        """Tell whether the program was executed, or never will be."""
        from runyard.agent import ends, launch

        end = os.path.join(self._directory, ends.END)
        return (
            launch.read_status(self._directory) is not None
            or os.path.exists(end)
            or not os.path.exists(self._directory)
        )

    def turn(self, source: Source, over: bool) -> None:
        """Take what a source has found, and where it has got to, into the spool: both, or neither."""
        if source.failed:
            return
        try:
            rows, messages = source.turn(over)
        except Exception as exc:  # noqa: BLE001  one kind of capture must not cost the others
            source.failed = True
            text = "%s: %s: %s" % (source.name, type(exc).__name__, exc)
            self._writer.message({"type": "capture", "notes": ["capture failed: " + text]})
            return
        state = source.state()
        if rows or messages or state != self._said.get(source.name):
            self._said[source.name] = state
            small = self._say_large(source, messages)
            self._writer.group(rows, [*small, position(source, self._number)])

    def _say_large(self, source: Source, messages: list[Message]) -> list[Message]:
        """Say what may be too large to be one record together with others; return the rest."""
        small = [message for message in messages if len(message[1]) <= LARGE]
        for message, content in messages:
            if len(content) > LARGE:
                try:
                    self._writer.message(message, content)
                except ValueError as exc:
                    note = "%s: %s was left out: %s" % (source.name, message.get("name"), exc)
                    small.append(({"type": "capture", "notes": [note]}, b""))
        return small

    def _sleep(self, wait: float) -> None:
        """Wait, but not longer than the supervisor lives."""
        from runyard.agent import launch
        from runyard.agent.waiting import wait_gone

        status = launch.read_status(self._directory) or {}
        if isinstance(status.get("supervisor_pid"), int):
            wait_gone(status["supervisor_pid"], status.get("supervisor_start"), wait)
        else:
            time.sleep(min(wait, FIRST_WAIT_S))  # it is just starting


def position(source: Source, number: int) -> Message:
    """Return what says where the collector of that number has got to."""
    return {"type": "position", "collector": number, "source": source.name, "value": source.state()}, b""


def make_sources(directory: str, facts: dict[str, Any]) -> list[Source]:
    """Return the sources of the kinds that are on, for the attempt in a directory; ``facts``: its `collect.json`."""
    found: list[Source] = []
    kinds = facts["kinds"]
    if "params" in kinds:
        from runyard.agent.typed import Typed

        found.append(Typed(facts))
    if "logs" in kinds:
        from runyard.agent.printed import Printed

        found.append(Printed(facts))
    if "files" in kinds:
        from runyard.agent.written import Written

        found.append(Written(facts))
    if "hardware" in kinds:
        from runyard.agent.usage import Usage

        found.append(Usage(directory, facts["gpu_uuids"]))
    if "data" in kinds:
        from runyard.agent.seen import Seen

        found.append(Seen(directory, facts))
    return found


def positions(directory: str) -> tuple[int, dict[str, Any]]:
    """Return how many collectors this attempt has had, and where they have got to, by source.

    In a stream the later position counts, of several streams that of the later collector; by no clock, which may jump.
    """
    from runyard.wire import spool

    count = 0
    found: dict[str, tuple[int, Any]] = {}
    for stream in spool.streams(directory):
        reader = spool.StreamReader(directory, stream, dead=True)
        reader.skip_missing()
        for records in iter(reader.read, []):
            for record in records:
                for message in spool.messages(record, "position"):
                    collector, source = message.get("collector"), message.get("source")
                    if isinstance(collector, int) and isinstance(source, str):
                        count = max(count, collector)
                        if collector >= found.get(source, (0,))[0]:
                            found[source] = (collector, message.get("value"))
    return count, {name: value for name, (_, value) in found.items()}


def serve() -> int:
    """Fork a collector for each attempt directory on standard input (lines of JSON), until that ends.

    A forked collector has everything imported already, and shares the memory of it. The answer to each line, one byte
    on standard output, comes once the collector of the attempt holds its lock: `STARTED`, or `NOT_STARTED`.
    """
    import gc
    import signal

    from runyard.agent import detach, ends, fingerprints, printed, seen, typed, usage, waiting, written  # noqa: F401
    from runyard.client import spool  # noqa: F401
    from runyard.wire import jsonlite

    detach.leave_session(())
    signal.signal(signal.SIGCHLD, _reap)
    gc.freeze()
    with open(0, "rb", closefd=False) as asked:
        for line in asked:
            os.write(1, STARTED if _fork(str(jsonlite.loads(line))) else NOT_STARTED)
    return 0


def _reap(number: int, frame: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass  # all are gone


def _fork(directory: str) -> bool:
    """Start the collector of an attempt; False when another one is at work, or none can be started."""
    from runyard.wire import files

    mother = os.getpid()
    try:
        lock = files.try_lock(os.path.join(directory, LOCK))
    except OSError:
        return False
    if lock is None:
        return False
    try:
        if os.fork():
            return True
    except OSError:
        return False
    finally:
        if os.getpid() == mother:
            os.close(lock)  # the fork has it too, and holds it for as long as it lives
    _be_collector(directory, lock)
    return False


def _be_collector(directory: str, lock: int) -> None:
    """Be the fork: collect, and end the process."""
    import signal
    import traceback

    from runyard.agent import detach

    status = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        detach.leave_session((lock,))
        nothing = os.open(os.devnull, os.O_RDWR)
        errors = os.open(os.path.join(directory, "collector.err"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for fd, target in ((nothing, 0), (nothing, 1), (errors, 2)):
            os.dup2(fd, target)
        status = main(directory)
    except BaseException:  # noqa: BLE001  whatever it is, the process ends here and says why
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main(directory: str) -> int:
    """Collect for one attempt, whose lock this process holds; 4 when there is nothing to do."""
    from runyard.client.spool import SpoolWriter
    from runyard.wire import files, procs

    facts = files.read_json(os.path.join(directory, "collect.json"))
    if not isinstance(facts, dict):
        return 4
    _be_nice(NICE)
    pid = os.getpid()
    process = {
        "type": "process", "writer": "collector", "pid": pid, "start": procs.start_time(pid),
        "boot_id": procs.boot_id(), "python": "%d.%d.%d" % sys.version_info[:3],
    }  # fmt: skip
    sources = make_sources(directory, facts)
    before, where = positions(facts["spool"])
    kept = files.read_json(facts["kept"]) if facts["resumed"] and not where else None
    for source in sources:
        if source.name in where:
            source.restore(where[source.name])
        elif source.lasting and isinstance(kept, dict) and source.name in kept:
            source.restore(kept[source.name])

    def again(writer: SpoolWriter) -> None:
        writer.group([], [position(source, before + 1) for source in sources])

    writer = SpoolWriter(facts["spool"], process, _complain, again)
    if not where:
        off = [kind for kind in facts["off"] if kind]
        writer.message({"type": "capture", "active": [source.name for source in sources], "off": off})
    Collector(directory, facts, writer, sources, before + 1).run()
    writer.close()
    return 0


def _be_nice(more: int) -> None:
    try:
        os.nice(more)
    except OSError:
        pass


def _complain(text: str) -> None:
    sys.stderr.write("collector: %s\n" % text)
