"""What an agent costs the machine that it runs on."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from tests.agent.fake_server import wait_for
from tests.agent.test_faults import _cpu_s
from tests.agent.test_life import SLEEPER

if TYPE_CHECKING:
    from tests.agent.conftest import AgentBox

RSS_MB = 40


def _rss_mb(pid: int) -> float:
    with open("/proc/%d/status" % pid) as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024


def test_memory_and_idle_time(box: AgentBox) -> None:
    box.yard.heartbeat_s = 15.0
    box.environ["RUNYARD_CPU_SLOTS"] = "32"
    agent = box.start()
    for number in range(12):
        box.end(box.python("open('o', 'w').write('1')", slots=["cpu%d" % number]))
    sleepers = [box.python(SLEEPER, slots=["cpu%d" % number]) for number in range(8)]
    for attempt in sleepers:
        box.status(attempt)
    wait_for(lambda: all("running" in box.yard.phases[attempt] for attempt in sleepers))
    time.sleep(0.5)
    before = _cpu_s(agent.pid)
    time.sleep(3.0)
    spent = _cpu_s(agent.pid) - before
    used = _rss_mb(agent.pid)
    print("agent: %.1f MB at most, %.0f ms of CPU in 3 s of eight idle runs" % (used, 1e3 * spent))
    assert used < RSS_MB
    assert spent <= 0.05
    assert len(os.listdir("/proc/%d/fd" % agent.pid)) < 60
