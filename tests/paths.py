"""Where the repository is, and the numbers of the original code."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARITY = Path(os.environ.get("PARITY_DIR", ROOT / "tests" / "parity"))
