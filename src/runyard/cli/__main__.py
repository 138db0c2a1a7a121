"""``python -m runyard.cli`` is ``runyard``."""

import sys

from runyard.cli.main import main

sys.exit(main())
