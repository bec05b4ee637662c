"""`python -m simforge` is the command line."""

import sys

from simforge.cli import main

sys.exit(main())
