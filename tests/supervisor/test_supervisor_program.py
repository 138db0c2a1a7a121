"""What the user's program finds when it runs, and what is written about its start and end."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runyard.agent import launch, spawn
from runyard.wire import procs, states
from tests.supervisor.supervised import PYTHON, Attempt, alive, python, until

Make = Callable[..., Attempt]


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_exit_code(attempt: Make, code: int) -> None:
    end = attempt(["sh", "-c", "exit %d" % code]).run()
    assert (end["exit_code"], end["signal"], end["reason"], end["origin"]) == (code, None, "exited", "user")
    assert end["leftover"] == end["unkilled"] == [] and end["log_dropped"] == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGHUP])
def test_signal(attempt: Make, number: int) -> None:
    end = attempt(python("import os, sys; os.kill(os.getpid(), int(sys.argv[1]))", str(int(number)))).run()
    assert (end["exit_code"], end["signal"], end["reason"], end["origin"]) == (None, number, "signaled", "user")


def test_status_names_the_processes_with_their_start_times(attempt: Make) -> None:
    before = time.time_ns() // 1000
    one = attempt(["sleep", "60"]).start().running()
    status = one.status()
    assert status["supervisor_pid"] == one.pid and status["boot_id"] == procs.boot_id()
    assert procs.is_alive(status["supervisor_pid"], status["supervisor_start"])
    assert procs.is_alive(status["pid"], status["pid_start"])
    assert os.readlink("/proc/%d/exe" % status["pid"]).rpartition("/")[2] in ("sleep", "coreutils", "busybox")
    assert before <= status["started_at"] <= time.time_ns() // 1000
    assert "end" not in status and launch.is_supervised(str(one.dir))
    os.kill(status["pid"], signal.SIGKILL)
    end = one.end()
    assert end["started_at"] == status["started_at"] <= end["ended_at"] <= time.time_ns() // 1000
    assert {name: one.status()[name] for name in status} == status


def test_launch_file_is_gone_once_the_program_runs_and_was_never_shown(attempt: Make) -> None:
    one = attempt(["sleep", "60"], env={"SECRET": "planted-7f3a"}).start().running()
    kept = b"".join(path.read_bytes() for path in one.dir.iterdir())
    command = Path("/proc/%d/cmdline" % one.pid).read_bytes() + Path("/proc/%d/environ" % one.pid).read_bytes()
    assert b"planted-7f3a" not in kept + command
    one.stop(0)
    one.end()


def test_environment_and_arguments_keep_bytes_that_are_no_utf8(attempt: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")  # the supervisor's locale must not matter
    code = (
        "import os, sys; e = os.environb; "
        "sys.stdout.buffer.write(b'|'.join([e[b'L'], e[b'\\xff'], e[b'E'], os.fsencode(sys.argv[1]), os.fsencode(os.getcwd())]))"
    )
    one = attempt(python(code, "arg \udce9"), env={"L": "caf\udce9", "\udcff": "x", "E": "é\n'"})
    work = os.fsencode(one.base) + b"/w\xe9 \n"
    os.mkdir(work)
    path = one.dir / "launch.json"
    value = json.loads(path.read_text())
    value["cwd"] = os.fsdecode(work)
    path.write_text(json.dumps(value))
    assert one.run()["exit_code"] == 0
    assert one.log() == b"|".join([b"caf\xe9", b"x", "é\n'".encode(), b"arg \xe9", work])


def test_only_the_three_standard_files_are_open(attempt: Make) -> None:
    code = """if True:
        import os
        for fd in range(1024):
            try:
                os.fstat(fd); print(fd, os.readlink("/proc/self/fd/%d" % fd))
            except OSError:
                pass
    """
    leak = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        one = attempt(python(code)).start()
    finally:
        os.close(leak)
    one.end()
    lines = [line.split() for line in one.log().decode().splitlines()]
    assert [line[0] for line in lines] == ["0", "1", "2"]
    assert lines[0][1] == "/dev/null" and lines[1][1] == lines[2][1] and lines[1][1].startswith("/dev/pts/")


def test_supervisor_keeps_no_file_of_its_starter(attempt: Make) -> None:
    leak = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        one = attempt(["sleep", "60"]).start().running()
    finally:
        os.close(leak)
    files = [os.readlink(entry.path) for entry in os.scandir("/proc/%d/fd" % one.pid)]
    assert "/dev/zero" not in files and files.count("/dev/null") == 2
    one.stop(0)
    one.end()


def test_signals_are_as_in_a_fresh_process(attempt: Make) -> None:
    old = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2, signal.SIGINT))
    try:
        one = attempt(["cat", "/proc/self/status"]).start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGUSR1, old)
    one.end()
    fields = dict(line.split(":", 1) for line in one.log().decode().splitlines())
    for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"):
        # 32 and 33 belong to the C library, and no program can set them.
        assert int(fields[name], 16) & ~(0b11 << 31) == 0, name


def test_umask_and_nice_are_those_of_the_agent(attempt: Make) -> None:
    old = os.umask(0o027)
    try:
        one = attempt(["sh", "-c", "umask; nice"]).start()
    finally:
        os.umask(old)
    one.end()
    assert one.log().split() == [b"0027", str(os.nice(0)).encode()]


def test_reading_standard_input_meets_its_end(attempt: Make) -> None:
    end = attempt(python("import sys; sys.exit(7 if sys.stdin.read() == '' and not sys.stdin.isatty() else 1)")).run()
    assert end["exit_code"] == 7


TERMINAL = """if True:
    import os, sys
    print(sys.stdout.isatty(), sys.stderr.isatty(), os.isatty(1) and tuple(os.get_terminal_size()))
    try:
        os.open("/dev/stdout", os.O_WRONLY)   # a session leader would get its controlling terminal this way
    except OSError as exc:
        print(exc)
    try:
        os.open("/dev/tty", os.O_RDWR); print("controlling terminal")
    except OSError:
        print("none")
    sys.stderr.write("error\\n")
"""


def test_output_is_one_terminal_that_controls_nothing(attempt: Make) -> None:
    one = attempt(python(TERMINAL))
    one.run()
    assert one.log() == b"True True (120, 40)\nnone\nerror\n"
    assert one.status()["pty"] is True


def test_output_is_a_pipe_when_asked(attempt: Make) -> None:
    one = attempt(python(TERMINAL), pty=False)
    one.run()
    assert one.log() in (b"False False False\nnone\nerror\n", b"error\nFalse False False\nnone\n")
    assert one.status()["pty"] is False


def test_output_is_a_pipe_where_no_terminal_is_to_be_had(attempt: Make) -> None:
    one = attempt(["sh", "-c", "test -t 1; echo $?"], lacks=("terminal",))
    one.run()
    assert one.log() == b"1\n" and one.status()["pty"] is False


def test_program_has_its_own_group_in_the_supervisors_session(attempt: Make) -> None:
    one = attempt(python("import os; print(os.getpid(), os.getpgid(0), os.getsid(0))")).start()
    one.end()
    pid, group, session = map(int, one.log().split())
    assert group == pid and session == one.pid and os.getsid(0) != one.pid


def test_attempt_marker_is_set_whatever_the_launch_file_says(attempt: Make) -> None:
    one = attempt(["sh", "-c", "echo $RUNYARD_ATTEMPT"], env={"RUNYARD_ATTEMPT": "other"})
    one.run()
    assert one.log().decode().strip() == one.id


def _script(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_programs_that_cannot_be_executed(attempt: Make, tmp_path: Path) -> None:
    cases = {
        "/nonexistent/python": "No such file",
        _script(tmp_path / "plain", "#!/bin/sh\n", 0o644): "Permission denied",
        _script(tmp_path / "text", "not a program\n"): "Exec format error",
        _script(tmp_path / "orphan", "#!/nonexistent/interpreter\n"): "interpreter",
        str(tmp_path): "Permission denied",
    }
    started = [(attempt([program, "x"]).start(), text) for program, text in cases.items()]
    for one, text in started:
        end = one.end()
        assert (end["reason"], end["origin"]) == (states.NOT_STARTED, states.USER)
        assert end["exit_code"] is None and end["signal"] is None and end["started_at"] is None
        assert text in end["detail"], end
        assert not (one.dir / "launch.json").exists()


def test_directory_to_run_in_is_gone(attempt: Make) -> None:
    one = attempt(["true"])
    one.cwd.rmdir()
    end = one.run()
    assert (end["reason"], end["origin"]) == (states.NOT_STARTED, states.USER)
    assert str(one.cwd) in end["detail"] and "No such file" in end["detail"]


@pytest.mark.parametrize("text", ["", "{", '{"argv": ["true"]}', "[]", None])
def test_unusable_launch_file_is_an_end_not_a_crash(attempt: Make, text: str | None) -> None:
    one = attempt(["true"])
    if text is None:
        (one.dir / "launch.json").unlink()
    else:
        (one.dir / "launch.json").write_text(text)
    end = one.run()
    assert (end["reason"], end["origin"]) == (states.NOT_STARTED, states.INFRA)
    assert "launch.json" in end["detail"]


def test_launch_file_with_a_nul_byte_is_refused() -> None:
    value = {"argv": ["a\0b"], "program": "/bin/true", "cwd": "/", "env": {}, "log": "l", "times": "t"}
    with pytest.raises(spawn.LaunchError, match="NUL"):
        spawn.Launch(value, "a")


def test_nothing_is_executed_twice(attempt: Make) -> None:
    one = attempt(["sh", "-c", "echo x"])
    text = (one.dir / "launch.json").read_text()
    one.run()
    (one.dir / "launch.json").write_text(text)
    again = launch.start_supervisor(PYTHON, str(one.lib), str(one.dir))
    until(lambda: launch.reap(again))
    assert one.log() == b"x\n"


def test_second_supervisor_leaves_the_first_alone(attempt: Make) -> None:
    one = attempt(["sleep", "60"]).start().running()
    status = one.status()
    again = launch.start_supervisor(PYTHON, str(one.lib), str(one.dir))
    until(lambda: launch.reap(again))
    assert one.status() == status and alive(status["pid"]) and launch.is_supervised(str(one.dir))
    one.stop(0)
    one.end()


def test_attempt_that_was_given_up_is_never_executed(attempt: Make) -> None:
    one = attempt(["sh", "-c", "echo x"])
    assert launch.forbid_start(str(one.dir)) is True
    assert one.run()["reason"] == states.NOT_STARTED
    assert one.log() == b""


def test_giving_up_fails_while_a_supervisor_lives(attempt: Make) -> None:
    one = attempt(["sleep", "60"]).start().running()
    assert launch.forbid_start(str(one.dir)) is False
    one.stop(0)
    one.end()


def test_lock_reader_does_not_keep_a_supervisor_from_starting(attempt: Make) -> None:
    import fcntl

    one = attempt(["sh", "-c", "echo x"])
    fd = os.open(one.dir / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_SH)
    one.start()
    until(lambda: b"supervisor.py" in Path("/proc/%d/cmdline" % one.pid).read_bytes())
    time.sleep(0.2)  # longer than the start of an interpreter
    assert one.status() == {}
    os.close(fd)
    assert one.end()["exit_code"] == 0


def test_resident_memory(attempt: Make) -> None:
    one = attempt(["sh", "-c", "head -c 3000000 /dev/zero; echo done; sleep 60"]).start()
    one.says(b"done")
    fields = dict(line.split(":", 1) for line in Path("/proc/%d/status" % one.pid).read_text().splitlines())
    assert int(fields["VmHWM"].split()[0]) <= 15 * 1024
    one.stop(0)
    one.end()
