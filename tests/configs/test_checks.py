"""Notes on configs that run, but probably not as meant."""

import pytest
from conftest import make_cfg

from src.configs.checks import warnings

WITHIN, NOTHING = "the run ends within its warm-up", "the only epoch has learning rate 0"


@pytest.mark.parametrize(("epochs", "warmup", "keys", "said"), [
    (10, 11, {}, [WITHIN]),
    (10, 10, {}, [WITHIN]),
    (10, 9, {}, []),
    (10, 9, {"SCHEDULE_LATE": True}, [WITHIN]),
    (10, 10, {"SCHEDULE_PER": "step"}, []),
    (10, 11, {"SCHEDULE_PER": "step"}, [WITHIN]),
    (2, 1, {}, []),
    (1, 0, {}, []),
    (1, 1, {}, [WITHIN, NOTHING]),
    (1, 1, {"WARMUP_LR": 1e-6}, [WITHIN]),
    (1, 1, {"SCHEDULE_PER": "step"}, []),
])  # fmt: skip
def test_a_warm_up_that_outlasts_the_run_is_noted(epochs, warmup, keys, said):
    keys = {"TOTAL_EPOCH": epochs, "WARMUP_EPOCH": warmup, **keys}
    notes = warnings(make_cfg(**{f"SOLVER__{key}": value for key, value in keys.items()}))
    assert [start for note in notes for start in (WITHIN, NOTHING) if note.startswith(start)] == said
    assert len(notes) == len(said)
