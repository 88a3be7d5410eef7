"""`python -m aevorium`."""

import sys

from aevorium.cli.app import main

sys.exit(main())
