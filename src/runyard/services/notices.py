"""Notices when a run ends: by a process of its own, so that a slow or broken address hurts nothing here.

`python -m runyard.services.notices` reads ``{"urls", "title", "body"}`` from standard input and sends it through
Apprise. The parent ends it when it takes too long.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading

from runyard.services.api import Json
from runyard.services.context import Context
from runyard.wire import states
from runyard.wire.errors import RunyardError

LOAD_LIMIT_S = 60.0
log = logging.getLogger("runyard.notices")


def text_of(run: Json, url: str) -> tuple[str, str]:
    """Return title and body of the notice about an ended run."""
    end = run["end"] or {}
    name = run["name"] or run["id"]
    why = end.get("reason") or ""
    if why == states.EXITED:
        why = f"exit code {end.get('exit_code')}"
    elif end.get("signal"):
        why += f", signal {end['signal']}"
    title = f"{run['project']}/{name} {run['state']}" + (f" ({why})" if run["state"] != states.FINISHED else "")
    lines = [
        run["message"],
        end.get("detail"),
        "$ " + " ".join(run["command"]),
        f"{url}/runs/{run['id']}" if url else "",
    ]
    return title, "\n".join(line for line in lines if line)


def notify(context: Context, run: Json, url: str) -> bool:
    """Send the notice that the settings ask for; tell if it was sent. Never raises for a failing address."""
    urls = list(context.settings["notify"])
    if not urls or run["state"] not in context.settings["notify_on"]:
        return False
    title, body = text_of(run, url)
    message = json.dumps({"urls": urls, "title": title, "body": body})
    limit = float(context.settings["notify_timeout"])
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "runyard.services.notices"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as sender:  # fmt: skip
        end = threading.Timer(LOAD_LIMIT_S, sender.kill)
        end.start()
        try:
            _wait_until_loaded(sender, message.encode())
            _, errors = sender.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            sender.kill()
            log.warning("the notice about run %s was given up after %g s", run["id"], limit)
            return False
        finally:
            end.cancel()
    if sender.returncode:
        log.warning("the notice about run %s was not sent: %s", run["id"], errors.decode(errors="replace")[-300:])
    return sender.returncode == 0


def _wait_until_loaded(sender: subprocess.Popen[bytes], message: bytes) -> None:
    """Loading Apprise and its plugins takes seconds on a busy machine and is not the address's fault."""
    if sender.stdin is None or sender.stdout is None:
        raise RunyardError("the process that sends notices has no pipes")
    try:
        sender.stdin.write(message + b"\n")
        sender.stdin.flush()
    except BrokenPipeError:
        return  # it died; communicate() tells how
    sender.stdout.readline()


def main() -> int:
    """Send one notice; the exit status tells whether every address took it."""
    import apprise  # noqa: PLC0415 - heavy, and only this process needs it

    message = json.loads(sys.stdin.readline())
    sender = apprise.Apprise()
    good = [sender.add(url) for url in message["urls"]]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sent = sender.notify(title=message["title"], body=message["body"])
    if not (all(good) and sent):
        sys.stderr.write("an address was refused or did not answer\n")
    return 0 if all(good) and sent else 1


if __name__ == "__main__":
    sys.exit(main())
