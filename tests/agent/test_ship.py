"""An agent that shares no directory with the server: trees come over HTTP, logs and outputs go back."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from runyard.agent import outputs, ship
from runyard.agent.context import Context
from runyard.agent.link import Target
from runyard.agent.stage import places
from runyard.agent.state import Attempt
from runyard.wire import files, settings
from tests.agent.fake_server import DROP_AFTER, DROP_BEFORE, assignment, wait_for

if TYPE_CHECKING:
    from tests.agent.conftest import AgentBox


@pytest.fixture
def far(box: AgentBox) -> AgentBox:
    """The home is not the server's."""
    os.unlink(box.paths.server_json)
    return box


def gone(box: AgentBox, attempt: str) -> None:
    wait_for(lambda: not os.path.exists(box.paths.attempt_dir(attempt)), what="the journal entry to go")


def test_log_and_outputs_arrive(far: AgentBox) -> None:
    far.start()
    code = (
        "import os, sys\nsys.stdout.buffer.write(b'\\xff\\x00 raw \\n')\nos.makedirs('out/a b')\n"
        "open('out/a b/m\\u00e9.bin', 'wb').write(os.urandom(3000000))\nopen(b'odd\\xff', 'w').write('')\n"
    )
    attempt = far.python(code)
    assert far.end(attempt)["exit_code"] == 0
    gone(far, attempt)
    assert far.yard.hellos[0]["shared_home"] is None
    assert far.yard.logs[attempt] == b"\xff\x00 raw \n"
    tree = next((far.home / "runs" / "digits").iterdir()) / "digits"
    sent = far.yard.files[attempt, "out/a b/m\u00e9.bin"]
    assert hashlib.sha256(sent).digest() == hashlib.sha256((tree / "out/a b/m\u00e9.bin").read_bytes()).digest()
    assert {output["path"] for output in far.yard.outputs[attempt]} == {"out/a b/m\u00e9.bin", "odd\udcff"}


def test_the_whole_log_is_there_when_the_end_is(far: AgentBox) -> None:
    far.start()
    attempt = far.python("for n in range(40000): print('line', n)")
    size = far.end(attempt)["log_bytes"]
    assert far.yard.size(attempt) == size > 400000


def test_the_log_comes_live(far: AgentBox) -> None:
    far.start()
    attempt = far.python("import time\nprint('early', flush=True)\ntime.sleep(60)\n")
    wait_for(lambda: far.yard.logs.get(attempt) == b"early\n")
    assert far.yard.end_of(attempt) is None
    far.yard.stop(attempt, 0.0)
    far.end(attempt)


@pytest.mark.parametrize("kind", [DROP_BEFORE, DROP_AFTER, "503", "nonsense"])
def test_broken_transfers_are_taken_up_again(far: AgentBox, kind: str) -> None:
    for method, pattern in (("PUT", "/log$"), ("PUT", "/outputs$"), ("PUT", "/files/")):
        far.yard.fault(kind, method, pattern, times=3)
    far.start()
    attempt = far.python("print('x' * 100000)\nfor n in range(3): open('f%d' % n, 'w').write('y' * 1000)\n")
    assert far.end(attempt)["exit_code"] == 0
    gone(far, attempt)
    assert far.yard.logs[attempt] == b"x" * 100000 + b"\n"
    assert {path for _, path in far.yard.files} == {"f0", "f1", "f2"}


def test_the_servers_count_decides_where_to_go_on(far: AgentBox) -> None:
    """The server lost part of the log (it was restored from a backup): it answers 409 with what it has."""
    far.start()
    attempt = far.python("import time\nprint('a' * 5000, flush=True)\ntime.sleep(1.5)\nprint('b' * 5000)\n")
    wait_for(lambda: far.yard.size(attempt) == 5001)
    with far.yard.changed:
        far.yard.logs[attempt] = far.yard.logs[attempt][:1000]
    far.end(attempt)
    gone(far, attempt)
    assert far.yard.logs[attempt] == b"a" * 5000 + b"\n" + b"b" * 5000 + b"\n"


def test_shipping_goes_on_after_a_restart(far: AgentBox) -> None:
    far.yard.fault("503", "PUT", "/files/", times=10_000)
    agent = far.start()
    attempt = far.python("open('model.pt', 'w').write('w' * 5000)\nprint('done')\n")
    far.end(attempt)
    reported = os.path.join(far.paths.attempt_dir(attempt), "reported")
    wait_for(lambda: files.read_json(reported))
    far.kill(agent)
    far.yard.faults.clear()
    far.start()
    gone(far, attempt)
    assert far.yard.files[attempt, "model.pt"] == b"w" * 5000
    assert len(far.yard.ends[attempt]) == 1
    assert attempt not in far.yard.hellos[1]["attempts"]


def test_files_that_the_server_refuses_do_not_hold_up_those_of_others(far: AgentBox) -> None:
    far.yard.fault("400", "PUT", "/files/bad$", times=10_000)
    far.start()
    refused = far.python("open('bad', 'w').write('x')\n")
    far.end(refused)
    wait_for(lambda: "cannot be sent" in far.log())
    good = far.python("open('good', 'w').write('y' * 1000)\nprint('done')\n")
    far.end(good)
    gone(far, good)
    assert far.yard.files[good, "good"] == b"y" * 1000
    assert os.path.exists(far.paths.attempt_dir(refused)), "kept until it can be sent"


def test_a_run_that_prints_without_end_does_not_hold_up_others(far: AgentBox) -> None:
    """It prints while each piece of its log is on the way, so there is always another one."""
    code = "import os, time\nwhile True:\n    os.write(1, b'x' * 1000)\n    time.sleep(0.001)\n"
    value = assignment(far.tree({"main.py": code}), [sys.executable, "main.py"])
    far.yard.late_s = 0.03
    far.yard.fault("late", "PUT", value["attempt"] + "/log$", times=1_000_000)
    far.start()
    chatty = far.submit(value)
    wait_for(lambda: far.yard.size(chatty) > 10_000)
    quick = far.python("open('out', 'w').write('y')\n")
    far.end(quick)
    gone(far, quick)
    assert far.yard.files[quick, "out"] == b"y"
    size = far.yard.size(chatty)
    wait_for(lambda: far.yard.size(chatty) > size, what="more of the other's log")
    far.yard.stop(chatty, 0.0)
    far.end(chatty)


def test_a_large_output_on_its_way_does_not_hold_up_the_logs_of_others(far: AgentBox) -> None:
    far.yard.late_s = 60.0
    far.yard.fault("late", "PUT", "/files/model.pt$")
    far.start()
    large = far.python("open('model.pt', 'w').write('w' * 5000)\n")
    far.end(large)
    wait_for(lambda: any(path.endswith("/model.pt") for _, path in list(far.yard.requests)), what="its upload to begin")
    live = far.python("import time\nprint('early', flush=True)\ntime.sleep(60)\n")
    wait_for(lambda: far.yard.logs.get(live) == b"early\n", what="the live log of another run")
    far.yard.stop(live, 0.0)
    assert far.end(live)["reason"] == "stopped"
    assert not far.yard.files, "it is still on its way"


def test_a_live_log_that_the_server_refuses_does_not_hold_up_others(far: AgentBox) -> None:
    value = assignment(far.tree({"main.py": "print('x', flush=True)\nimport time\ntime.sleep(60)\n"}),
                       [sys.executable, "main.py"])  # fmt: skip
    far.yard.fault("400", "PUT", value["attempt"] + "/log$", times=10_000)
    far.start()
    refused = far.submit(value)
    wait_for(lambda: "cannot be sent" in far.log())
    good = far.python("open('good', 'w').write('y')\n")
    far.end(good)
    gone(far, good)
    assert far.yard.files[good, "good"] == b"y"
    far.yard.stop(refused, 0.0)
    far.end(refused)


def test_an_output_that_cannot_be_read_does_not_hold_up_others(far: AgentBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that the root of a container left; this test may be root itself."""

    def locked(path: str, mode: str) -> IO[bytes]:
        if path.endswith("/bad"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return open(path, mode)

    monkeypatch.setattr(ship, "open", locked, raising=False)
    context = Context(far.paths, "", sys.executable, Target(far.server.url), settings.defaults(), None)
    value = assignment("0" * 40, ["true"])
    attempt = Attempt(far.paths.attempt_dir(value["attempt"]), value)
    tree = Path(places(context.home.path, attempt).tree)
    tree.mkdir(parents=True)
    for name in ("a", "bad", "z"):
        (tree / name).write_text(name)
    attempt.outputs = outputs.scan(str(tree), [])
    context.introduced.set()
    shipper = ship.Shipper(context, shared=False)
    shipper.add(attempt)
    threads = [threading.Thread(target=work, daemon=True) for work in shipper.threads]
    for thread in threads:
        thread.start()
    try:
        wait_for(shipper.idle, what="the other files to be sent")
    finally:
        context.state.stopping.set()
        shipper.wake(attempt)
        for thread in threads:
            thread.join(10)
    assert {path: data for (_, path), data in far.yard.files.items()} == {"a": b"a", "z": b"z"}


def test_a_draining_agent_ships_before_it_ends(far: AgentBox) -> None:
    agent = far.start()
    attempt = far.python("import time\nopen('big', 'w').write('z' * 100000)\ntime.sleep(0.3)\n")
    far.status(attempt)
    far.yard.drain = True
    assert agent.wait(15) == 0
    assert far.yard.files[attempt, "big"] == b"z" * 100000


def test_a_token_is_shown_and_never_in_the_open(far: AgentBox) -> None:
    token = far.home / "token"
    token.write_text("agent-secret\n")
    agent = far.start("--token-file", str(token))
    assert far.end(far.run(sys.executable, "train.py"))["exit_code"] == 0
    with open("/proc/%d/cmdline" % agent.pid, "rb") as file:
        assert b"agent-secret" not in file.read()
    assert "agent-secret" not in far.log()
