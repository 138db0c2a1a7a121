"""``python -m runyard.agent``."""

import sys

from runyard.agent.main import main

if __name__ == "__main__":
    sys.exit(main())
