"""The waits of the agent protocol, in seconds: one object for the server's half and one for the agent's.

They are no settings: people have no reason to change them. Tests use short ones, so that leases run out meanwhile.
"""

from __future__ import annotations

from runyard.wire import states


class Timing:
    """All waits, each ``scale`` times what is usual; any of them can then be set by itself."""

    def __init__(self, scale: float = 1.0) -> None:
        self.lease_s = states.LEASE_S * scale
        self.heartbeat_s = states.HEARTBEAT_S * scale
        """Both: the server tells agents."""
        self.lost_requeue_s = states.LOST_REQUEUE_S * scale
        self.contact_s = 40.0 * scale
        """Server: an agent that has said nothing for longer gets no new work; it polls every `poll_wait_s` at most."""
        self.tick_s = 5.0 * scale
        """Server: how often leases are looked at and free slots are offered, besides whenever something happens."""
        self.refusal_s = 10.0 * scale
        """Server: how long a host that gave a run back is not given the same run again."""
        self.clock_tolerance_s = 5.0 * scale
        """Server: difference between two clocks' progress from one look to the next that still counts as agreement."""
        self.gap_s = 20.0 * scale
        """Server: a longer time between two looks means that the process, or the database, stood still."""
        self.poll_wait_s = 25.0 * scale
        self.poll_margin_s = 15.0 * scale
        """Agent: how long a poll is held open, and how much later its answer may come."""
        self.beat_timeout_s = 10.0 * scale
        self.answer_s = 30.0 * scale
        """Agent: how long the answers to a heartbeat and to any other request are waited for."""
        self.backoff_cap_s = 5.0 * scale
        self.refused_s = 30.0 * scale
        """Agent: longest wait before a request is repeated, and wait after a refusal that a person must see to."""
        self.wait_for_run_s = 120.0 * scale
        """Agent: how long a new attempt waits for an earlier one of its run on this host before it is handed back."""
