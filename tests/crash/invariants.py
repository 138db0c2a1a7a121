"""What must be true once everything has been repaired and the yard has come to rest."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

from runyard.wire import states
from runyard.wire.errors import RunyardError
from tests.crash import points
from tests.crash.yard import SLOTS, Ledger, Yard, wait_for

REST_S = 45.0
"""How long the yard may take to come to rest; a lease, a requeue and some restarts are in it."""
PIECE = 120
"""Records between two words of `job` about how many there are."""
Json = dict[str, Any]


def repair(yard: Yard) -> None:
    """Undo everything that was done to the yard."""
    yard.note("repair")
    points.disarm(yard.control)
    yard.free_disk()
    for proxy in yard.proxies.values():
        proxy.noise = 0.0
        proxy.traps.clear()
    for name in yard.proxies:
        yard.cut(name, False)
    for name in ("server", *yard.proxies):
        if yard.is_alive(name) and _is_stopped(yard.pids[name][0]):
            yard.go_on(name)
    for name in sorted(yard.terminating):
        wait_for(lambda name=name: not yard.is_alive(name), "%s to end" % name, 20.0)  # type: ignore[misc]
    yard.start_server()
    yard.wait_ready()
    for name in yard.proxies:
        yard.start_agent(name)
    for run_id, sent in yard.sent.items():
        if not sent.answered and not _submitted_again(yard, run_id):
            yard.note("%s cannot be submitted" % run_id)
        with contextlib.suppress(RunyardError):
            yard.api("POST", "/api/v1/runs/%s/release" % run_id, {})


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(OSError), open("/proc/%d/stat" % pid, "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"T"
    return False


def _submitted_again(yard: Yard, run_id: str) -> bool:
    for _ in range(100):
        try:
            if yard.send(run_id):
                return True
        except RunyardError as exc:
            yard.note("submit of %s refused: %s" % (run_id, exc.message))
            yard.sent[run_id].spec.update(after=[])
            return False
        time.sleep(0.1)
    return False


def rest(yard: Yard, within_s: float) -> list[str]:
    """Wait until nothing happens any more; return what keeps the yard from it."""
    deadline = time.monotonic() + within_s
    reasons = ["it never answered"]
    while reasons and time.monotonic() < deadline:
        time.sleep(0.1)
        with contextlib.suppress(RunyardError, OSError, ValueError):
            reasons = _unrest(yard)
    yard.note("at rest" if not reasons else "no rest: %s" % reasons)
    return ["the yard does not come to rest: " + reason for reason in reasons]


def _unrest(yard: Yard) -> list[str]:
    found = [
        "run %s is %s (%s) %s" % (run["id"], run["state"], run["phase"], run["wait_reasons"])
        for run in yard.runs()
        if run["ended_at"] is None
    ]
    slots = yard.api("GET", "/api/v1/status")["slots"]
    found += ["slot %s is held by run %s" % (slot["name"], slot["run"]) for slot in slots if not slot["free"]]
    if len(slots) != sum(SLOTS[name] for name in yard.proxies):
        found.append("there are %d slots" % len(slots))
    for name in yard.proxies:
        for place in (yard.path / name).glob("hosts/*/attempts/*"):
            found.append("the journal of %s holds %s: %s" % (name, place.name, sorted(os.listdir(place))))
    launches = yard.home / "launch"
    if launches.exists() and os.listdir(launches):
        found.append("launch files are left: %s" % os.listdir(launches))
    found += ["a program of %s lives: attempt %s" % (run, attempt) for attempt, (run, _) in yard.programs().items()]
    found += ["left over: " + line for line in yard.leftovers()]
    return found


def check(yard: Yard) -> list[str]:
    """Return what is wrong with the runs of a yard at rest; see the module's name."""
    found = []
    shown = {run["id"]: run for run in yard.runs()}
    for run_id, sent in yard.sent.items():
        if run_id not in shown:
            if sent.answered:
                found.append("run lost: %s was submitted and is not there" % run_id)
            continue
        for problem in _problems(yard, shown[run_id]):
            found.append("run %s: %s" % (run_id, problem))
    return found


def _problems(yard: Yard, run: Json) -> list[str]:
    found = []
    ledger, events = yard.ledger(run["id"]), yard.events(run["id"])
    found += ["two live programs on slot %(slot)s: %(attempt)s beside %(holder)s" % x for x in ledger.of("violation")]
    found += ["attempt %(attempt)s runs without a journal" % line for line in ledger.of("homeless")]
    starts = [line["attempt"] for line in ledger.of("start")]
    found += ["attempt %s was executed %d times" % (a, starts.count(a)) for a in set(starts) if starts.count(a) > 1]
    known = {attempt["id"]: attempt for attempt in run["attempts"]}
    found += ["attempt %s was executed and is not known" % a for a in set(starts) - set(known)]
    found += _leave(run, events, set(starts))
    found += _ends(run, events)
    current = _current(run, events)
    if run["end"] is not None and run["end"]["reason"] in (states.EXITED, states.SIGNALED):
        found += _truth(run, current, ledger.of("end"))
    found += _budget(run, events)
    for attempt in run["attempts"]:
        found += _data(yard, run, attempt, [line for line in ledger.of("line") if line["attempt"] == attempt["id"]])
        found += _logged(yard, run, attempt, ledger)
        if attempt["ended_at"] is None:
            found.append("attempt %s never ends" % attempt["id"])
    if run["message"] == "writer" and run["state"] == states.FINISHED and run["code_frozen"]:
        found += _output(yard, run, current)
    return found


def _leave(run: Json, events: list[Json], started: set[str]) -> list[str]:
    """A program is executed with the server's leave only, and never after its attempt was given back."""
    granted = {event["attempt"] for event in events if event["kind"] == "running"}
    found = ["attempt %s was executed without leave" % attempt for attempt in started - granted]
    back = {a["id"] for a in run["attempts"] if a["end"] and a["end"]["reason"] == states.HANDED_BACK}
    return found + ["attempt %s was executed after it was given back" % attempt for attempt in started & back]


def _ends(run: Json, events: list[Json]) -> list[str]:
    """Exactly one end, and no change of state after it; only a run that was given up may be heard of again."""
    ended = [event for event in events if event["kind"] == "ended"]
    if run["state"] == states.LOST and not ended:
        ended = [event for event in events if event["kind"] == "given_up"][-1:]
    if len(ended) != 1:
        return ["ended %d times: %s" % (len(ended), [(e["kind"], e["from"], e["to"]) for e in events])]
    after = [e["kind"] for e in events if e["id"] > ended[0]["id"] and e["from"] != e["to"]]
    found = ["changed after its end: %s" % after] if after else []
    if ended[0]["to"] != run["state"]:
        found.append("ended as %s and is shown as %s" % (ended[0]["to"], run["state"]))
    return found


def _current(run: Json, events: list[Json]) -> str:
    """Return the attempt whose end became the run's."""
    over = [event for event in events if event["kind"] in ("ended", "given_up")]
    return str(over[-1]["attempt"] or "") if over else ""


def _truth(run: Json, current: str, ends: list[Json]) -> list[str]:
    """The end of the run is that of its current attempt, and the program says the same."""
    found = []
    attempt = next((a for a in run["attempts"] if a["id"] == current), None)
    if attempt is None or attempt["end"] is None:
        return ["its end is not that of an attempt (%s)" % current]
    for name in ("exit_code", "signal", "reason"):
        if attempt["end"][name] != run["end"][name]:
            found.append("shows %s %r, its attempt %r" % (name, run["end"][name], attempt["end"][name]))
    if attempt["host"] != run["host"] or sorted(attempt["slots"]) != sorted(run["slots"]):
        found.append("shows host and slots of another attempt")
    said = [line["exit_code"] for line in ends if line["attempt"] == current]
    if run["end"]["reason"] == states.EXITED and said != [run["end"]["exit_code"]]:
        found.append("shows exit code %r, and its program said %r" % (run["end"]["exit_code"], said))
    return found


def _budget(run: Json, events: list[Json]) -> list[str]:
    """A run is given up for infrastructure only after its budget is used, and never tried more often than it may be."""
    lost = [e for e in events if e["kind"] == "requeued" and "losses" in (e["detail"] or {})]
    failed = [e for e in events if e["kind"] == "requeued" and "failures" in (e["detail"] or {})]
    found = []
    if len(lost) > states.INFRA_LOSS_BUDGET or len(failed) > run["retries"]:
        found.append("requeued %d times after losses and %d after failures" % (len(lost), len(failed)))
    if run["end"] and run["end"]["origin"] == states.INFRA and run["requeue"] and len(lost) < states.INFRA_LOSS_BUDGET:
        found.append("given up (%s) after %d losses" % (run["end"]["reason"], len(lost)))
    return found


def _data(yard: Yard, run: Json, attempt: Json, lines: list[Json]) -> list[str]:
    """Every line that a program has printed is in its log, unless its supervisor was killed or the disk was full."""
    end = attempt["end"] or {}
    if not lines or attempt["id"] in yard.supervisors_killed or end.get("reason") == states.SUPERVISOR_DIED:
        return []
    if attempt["log_dropped"] or yard.disk_was_full:
        return []
    text = yard.log_of(run["id"], attempt["number"])
    missing = [x["number"] for x in lines if b"%s line %d\n" % (attempt["id"].encode(), x["number"]) not in text]
    if not missing:
        return []
    return ["attempt %s: lines %s are not in its log of %d bytes" % (attempt["id"], missing, len(text))]


def _logged(yard: Yard, run: Json, attempt: Json, ledger: Ledger) -> list[str]:
    """Every record whose call has returned is there once, and so is what capture finds in the log; nothing is missing."""
    name, said = attempt["id"], [line for line in ledger.lines if line["attempt"] == attempt["id"]]
    told = max((line["number"] for line in said if line["what"] == "logged"), default=0)
    if not told:
        return []
    steps, values = yard.series(run["id"], "logged/" + name)
    found = []
    if steps != list(range(len(steps))) or values != steps:
        found.append("attempt %s: records twice, or not there: %d of %d" % (name, len(set(steps)), len(steps)))
    if len(steps) < told or (len(steps) > told + PIECE):
        found.append("attempt %s: %d records were logged, and %d are there" % (name, told, len(steps)))
    summary = yard.show(run["id"])["metrics"]["logged/" + name]
    if (summary["count"], summary["last"]) != (len(steps), len(steps) - 1.0):
        found.append("attempt %s: the summary of %d records says %s" % (name, len(steps), summary))
    capture = yard.show(run["id"])["capture"] or {}
    if capture.get("missing") or capture.get("refused"):
        found.append("attempt %s: said to be missing or refused: %s" % (name, capture))
    return found + _printed(yard, run, attempt, [line["step"] for line in said if line["what"] == "printed"])


def _printed(yard: Yard, run: Json, attempt: Json, told: list[int]) -> list[str]:
    """What was printed was found once, unless its end never came into the log."""
    steps, values = yard.series(run["id"], "printed_" + attempt["id"][:12])
    found = []
    if sorted(set(steps)) != steps or values != steps:
        found.append("attempt %s: what was printed was found twice or wrongly: %s" % (attempt["id"], steps))
    died = (attempt["end"] or {}).get("reason") == states.SUPERVISOR_DIED
    lost = sorted(set(told) - set(steps))
    if lost and not died and attempt["id"] not in yard.supervisors_killed:
        found.append("attempt %s: printed, and not found: %s" % (attempt["id"], lost))
    return found


def _output(yard: Yard, run: Json, current: str) -> list[str]:
    """The file that is shown is the one that the current attempt wrote."""
    found = [output for output in run["outputs"] if output["path"] == "result.txt"]
    if yard.disk_was_full:
        return []
    if not found:
        return ["its output is not shown"]
    with open(os.path.join(run["run_dir"], "result.txt")) as file:
        text = file.read()
    return [] if text == current else ["its output is that of %s, not of %s" % (text, current)]


def shut_down(yard: Yard) -> list[str]:
    """End server and agents as one does; return what does not end."""
    found = []
    for name in (*yard.proxies, "server"):
        yard.signal(name, signal.SIGTERM)
    deadline = time.monotonic() + 15.0
    while any(map(yard.is_alive, yard.pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    found += ["%s does not end at SIGTERM" % name for name in yard.pids if yard.is_alive(name)]
    return found


def verdict(yard: Yard, within_s: float = REST_S) -> list[str]:
    """Repair the yard, wait until it rests, and return everything that is wrong with it."""
    repair(yard)
    found = rest(yard, within_s)
    try:
        found += check(yard)
    except (RunyardError, OSError) as exc:
        found.append("the server does not answer: %s" % exc)
    found += shut_down(yard)
    return found
