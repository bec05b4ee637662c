"""`python -m simforge` is the command line."""

import sys

from simforge.cli.main import main

sys.exit(main())
