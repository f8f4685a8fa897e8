"""What a step holds in memory: counted without computing, and in a real forward."""

import pytest
import torch
from conftest import make_model, make_vit

from src.engine.memory import activation_bytes

SIZE = (32, 32)


def kept_by_autograd(model, images: int, autocast=None) -> int:
    """Bytes of the distinct storages that a real forward saves for its backward, without the model's own."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage
        return tensor

    given = torch.randn(images, 3, *SIZE)
    own.add(given.untyped_storage().data_ptr())
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", autocast, enabled=autocast is not None):
        model(given)  # its output goes at once: only what is saved is there
    return sum(storage.nbytes() for storage in saved.values())


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize(
    ("names", "freqfit"), [("end2end", ""), ("lora", "freqfit"), ("ssf", ""), ("adaptformer", ""), ("fact_tk", "")]
)
def test_bytes_are_those_that_autograd_keeps(names, freqfit, autocast):
    model = make_model(names, freqfit, vit=make_vit(depth=2)).train()
    assert activation_bytes(model, SIZE, autocast=autocast).of(5) == kept_by_autograd(model, 5, autocast)


def test_a_network_without_numbers_is_counted_alike():
    model = make_model("lora", "freqfit", vit=make_vit(depth=2))
    expected = activation_bytes(model, SIZE)
    assert activation_bytes(model.to("meta"), SIZE) == expected
    assert expected.per_image > 0
    assert not model.training
