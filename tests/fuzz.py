"""How many examples the tests with random input try: RUNYARD_TEST_FUZZ=50 for so many times as many as usual."""

from __future__ import annotations

import os

MORE = int(os.environ.get("RUNYARD_TEST_FUZZ", "1"))
