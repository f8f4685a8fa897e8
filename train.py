"""``python train.py`` in a checkout is ``vitune train``; see src/tools/train/__main__.py, or --help."""

import sys

try:
    from src.tools.train.__main__ import main
except ImportError as error:  # torch is missing, or the system is none of ours
    sys.exit(f"error: {error}")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
