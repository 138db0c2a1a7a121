"""The standard library's ``signal``, or rather the C module below it.

``signal`` wraps the C module in enums, and importing it takes as long as starting Python does; everything that is needed
here is in the C module, with plain integers.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

__all__ = ["signal"]
