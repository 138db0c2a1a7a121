"""Pure functions: which queued run may start on which slots, now and later.

No input or output, no clock: everything comes in as arguments (`runyard.model.placement`), the answer is a value.
"""

from runyard.scheduler.needs import blocked_keys, held_resources, resource_key
from runyard.scheduler.planner import plan

__all__ = ["blocked_keys", "held_resources", "plan", "resource_key"]
