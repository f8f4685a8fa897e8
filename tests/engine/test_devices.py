"""What depends on GPUs, where there is none: their names, and the states of their generators."""

import pytest
import torch

from src.engine.device import choose_device
from src.utils import seed


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(two_gpus):
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="DEVICE 'cuda:2': torch sees cuda:0, cuda:1 only; CUDA_VISIBLE_DEVICES"):
        choose_device("cuda:2")


def test_generators_go_on_on_another_gpu_and_without_one(monkeypatch):
    """A run of cuda:5 may be resumed where there is one GPU, or none."""
    states, cpu = {torch.device("cuda:5"): torch.tensor([5])}, torch.get_rng_state()
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device: state}))
    saved = seed.random_state(torch.device("cuda:5"))
    torch.rand(3)
    seed.set_random_state(saved, torch.device("cuda:0"))
    assert states[torch.device("cuda:0")] == 5
    assert torch.equal(torch.get_rng_state(), cpu)
    seed.set_random_state(saved, torch.device("cpu"))
    assert len(states) == 2
    assert seed.random_state(torch.device("cpu"))["cuda"] == []
