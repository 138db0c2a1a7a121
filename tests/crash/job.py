"""The user's program in the crash suite: says in a ledger, outside of Runyard, what happens to it.

``job.py YARD BEHAVIOUR SECONDS EXIT``. The ledger of a run is ``YARD/ledger/<run>``, one JSON object per line. For its whole
life the program holds a lock named after each of its slots; a lock that is taken is a violation.
"""

import fcntl
import glob
import json
import os
import signal
import sys
import time

YARD, BEHAVIOUR, SECONDS, EXIT = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
RECORDS, PIECE = 12_000, 120
RUN, ATTEMPT = os.environ["RUNYARD_RUN_ID"], os.environ["RUNYARD_ATTEMPT"]
LEDGER = os.open(os.path.join(YARD, "ledger", RUN), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def say(what, **facts):
    facts.update(what=what, attempt=ATTEMPT, pid=os.getpid(), at=time.monotonic())
    os.write(LEDGER, json.dumps(facts).encode() + b"\n")


def started():
    with open("/proc/self/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def slots():
    """Return host and names of the slots that this attempt was given, as its host's journal has them."""
    for host in ("home", "far"):
        found = glob.glob(os.path.join(YARD, host, "hosts", "*", "attempts", ATTEMPT, "assignment.json"))
        for path in found:
            with open(path) as file:
                return host, json.load(file)["slots"]
    return "?", []


def take_slots(host, names):
    held = []
    for name in names:
        fd = os.open(os.path.join(YARD, "slots", host + "-" + name), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, ATTEMPT.encode(), 0)
        except OSError:
            say("violation", slot=host + "-" + name, holder=os.pread(fd, 64, 0).decode())
        os.set_inheritable(fd, True)
        held.append(fd)
    return held


def leave_a_grandchild():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(30.0)
        os._exit(0)
    os.wait()


def log_records():
    """Log RECORDS records in many pieces, say after each how many have been, and print what capture finds, too."""
    import runyard

    others = {"other%d" % number: 1.0 for number in range(9)}
    for first in range(0, RECORDS, PIECE):
        for step in range(first, first + PIECE):
            runyard.log({"logged/" + ATTEMPT: float(step), **others}, step=step)
        say("logged", number=first + PIECE)
        sys.stdout.write("step: %d printed_%s: %d\n" % (first, ATTEMPT[:12], first))
        sys.stdout.flush()
        say("printed", step=first)
        time.sleep(max(SECONDS, 0.3) * PIECE / RECORDS)


def earlier_ends():
    with open(os.path.join(YARD, "ledger", RUN)) as file:
        return sum('"what": "end"' in line for line in file)


def main():
    host, names = slots()
    say("start", ticks=started(), slots=names, host=host)
    if not names:
        say("homeless")  # its journal is gone: the agent has forgotten it or never knew it
    held = take_slots(host, names)
    if BEHAVIOUR == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if BEHAVIOUR == "family":
        leave_a_grandchild()
    if BEHAVIOUR == "writer":
        try:
            with open("result.txt", "w") as file:
                file.write(ATTEMPT)
        except OSError:  # the disk is full
            say("end", exit_code=1, held=len(held))
            sys.exit(1)
    if BEHAVIOUR == "logger":
        log_records()
    number, until = 0, time.monotonic() + SECONDS
    while True:
        text = "%s line %d\n" % (ATTEMPT, number) + ("x" * 79 + "\n") * (200 if BEHAVIOUR == "talker" else 0)
        sys.stdout.write(text)
        sys.stdout.flush()
        say("line", number=number)
        number += 1
        left = until - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(left, 0.1))
    code = EXIT if BEHAVIOUR != "flaky" or earlier_ends() < 2 else 0
    say("end", exit_code=code, held=len(held))
    sys.exit(code)


main()
