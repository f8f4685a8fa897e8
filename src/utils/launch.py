"""Who this process is among those that were started together, as the environment says: without torch."""

import os


def expected() -> int:
    """How many processes the environment speaks of."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def expected_rank() -> int:
    """Which of them this one is."""
    return int(os.environ.get("RANK", "0"))
