"""What every source of the collector has in common: there is one for each kind of capture."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.client.spool import Message, Row


class Source:
    """Something that is looked at in turns. ``name`` is that of its kind, or of its part of one.

    A turn's findings and `state` afterwards go into the spool together, so what `restore` is given is exactly what has been
    taken in.
    """

    name = ""
    failed = False
    """It raised something, and is left out from then on."""
    lasting = False
    """What it looks at is still there when the run is tried again, in the same directory: then it goes on."""
    behind = False
    """The last turn left something, which is wanted before the end of the run is reported."""

    def turn(self, over: bool) -> tuple[list[Row], list[Message]]:
        """Return what is new. ``over``: no process of the run lives, this is the last look."""
        raise NotImplementedError

    def state(self) -> Any:
        """Return where it has got to, as JSON."""
        return None

    def restore(self, value: Any) -> None:
        """Go on from there."""

    def has_more(self) -> bool:
        """Tell whether there is work that need not be done before the end of the run is reported."""
        return False


def pids_of(directory: str) -> list[int]:
    """Return the processes of the attempt in a directory: the program and all that descends from its supervisor."""
    from runyard.agent import launch

    supervisor = (launch.read_status(directory) or {}).get("supervisor_pid")
    if not isinstance(supervisor, int):
        return []
    found: list[int] = []
    todo = [supervisor]
    while todo:
        children = _children(todo.pop())
        if children is None:
            return _by_table(supervisor)
        found += children
        todo += children
    return found


def _children(pid: int) -> list[int] | None:
    """Return the children of a process, None where the kernel does not list them. Source: proc(5), task/TID/children."""
    top = "/proc/%d/task" % pid
    try:
        threads = os.listdir(top)
    except OSError:
        return []  # it has ended
    found: list[int] = []
    for thread in threads:
        try:
            with open("%s/%s/children" % (top, thread), "rb") as file:
                found += map(int, file.read().split())
        except FileNotFoundError:
            if os.path.exists("%s/%s" % (top, thread)):
                return None
        except OSError:
            continue
    return found


def _by_table(supervisor: int) -> list[int]:
    from runyard.agent import tree

    return sorted(tree.descendants(tree.processes(), (supervisor,)) - {os.getpid()})
