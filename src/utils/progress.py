"""Progress bars; of several processes, only one shows them."""

from tqdm import tqdm as _tqdm

from .launch import expected_rank


class tqdm(_tqdm):
    """tqdm, silent in all processes but rank 0."""

    def __init__(self, *args, **settings):
        # Otherwise TQDM_DISABLE applies, as always.
        super().__init__(*args, **({"disable": True} if expected_rank() > 0 else {}) | settings)
