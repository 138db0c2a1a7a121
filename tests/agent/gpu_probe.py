"""A process that looks at GPUs when told to: prints the slots as JSON for each line ``ours,ours`` on standard input."""

from __future__ import annotations

import json
import sys

sys.path.insert(0, sys.argv[1])

from runyard.agent.gpus import Gpus
from runyard.agent.nvml import Nvml

choice, visible, owned = sys.argv[2], None if sys.argv[3] == "-" else sys.argv[3], sys.argv[4]
nvml = Nvml()
nvml.present()
gpus = Gpus(
    nvml, choice, visible, ["Xorg"], 300, lambda pid: "mine" if str(pid) in owned.split(",") else None, sys.argv[5]
)
for line in sys.stdin:
    gpus.discover()
    print(json.dumps(gpus.slots(frozenset(line.strip().split(",")))), flush=True)
