"""``python -m npgemma`` is the ``npgemma`` command."""

import sys

from npgemma.cli import main

sys.exit(main())
