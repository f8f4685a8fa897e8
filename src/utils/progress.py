"""Progress bars, of which several processes that train together show one."""

from tqdm import tqdm as _tqdm

from .launch import expected_rank


class tqdm(_tqdm):
    """tqdm, silent in all but the first process."""

    def __init__(self, *args, **settings):
        # Where nothing is said TQDM_DISABLE decides, as always.
        super().__init__(*args, **({"disable": True} if expected_rank() > 0 else {}) | settings)
