"""``python -m vitune``: the same as the command ``vitune``."""

import sys

from .cli import main

sys.exit(main())
