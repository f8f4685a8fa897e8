"""What a launcher (torchrun, srun) says in the environment of the processes that it starts; read without torch."""

import os


def expected() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def expected_rank() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ.get("RANK", "0"))
