"""Which modules a forward calls, found once for all networks that are alike."""

import pytest
import torch
from conftest import make_vit
from torch import nn

from src.models import called as module
from src.models.called import called


class Choosing(nn.Module):
    """An MLP that leaves out its activation where an attribute says so."""

    def __init__(self, channels: int = 32):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(32, channels), nn.ReLU(), nn.Linear(channels, 32)
        self.settings = {"act": True}

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(self.act(x) if self.settings["act"] else x)


def network(act: bool = True, channels: int = 32) -> nn.Module:
    vit = make_vit()
    vit.blocks[1].mlp = Choosing(channels)
    vit.blocks[1].mlp.settings["act"] = act
    return vit


@pytest.fixture
def computed(monkeypatch) -> list[nn.Module]:
    """The networks whose forward was followed, none of them known before."""
    seen, honest = [], module._called
    monkeypatch.setattr(module, "_KNOWN", {})
    monkeypatch.setattr(module, "_called", lambda vit: seen.append(vit) or honest(vit))
    return seen


def test_networks_that_are_alike_are_followed_once(computed):
    one, other = network(), network()
    with torch.no_grad():
        other.blocks[0].attn.qkv.weight.add_(1.0)
    assert called(one) == called(other) == called(one.to("meta"))
    assert {"blocks.1.mlp.act", "blocks.0.attn.qkv", ""} <= called(one).keys()
    assert len(computed) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda vit: vit.blocks[1].mlp.settings.update(act=False),
        lambda vit: setattr(vit.blocks[1], "mlp", Choosing(16)),
        lambda vit: vit.blocks[1].register_module("norm1", nn.Identity()),
        lambda vit: vit.blocks[1].mlp.register_forward_hook(lambda *_: None),
        lambda vit: setattr(vit.blocks[1].mlp, "forward", vit.blocks[1].mlp.fc2.forward),
        lambda vit: vit.train(),
        lambda vit: vit.double(),
    ],
    ids=["attribute", "shape", "class", "hook", "forward", "mode", "type"],
)
def test_any_other_network_is_followed_again(computed, change):
    called(network())
    other = network()
    change(other)
    found = called(other)
    assert len(computed) == 2
    runs = other.blocks[1].mlp.settings["act"] and "forward" not in vars(other.blocks[1].mlp)
    assert ("blocks.1.mlp.act" in found) == runs


def test_what_cannot_be_written_is_followed_each_time(computed):
    vit = network()
    vit.blocks[1].mlp.own = lambda x: x
    assert called(vit) == called(vit)
    assert len(computed) == 2


def test_a_module_in_two_places_keeps_its_numbers():
    """As in timm's CoaT: torch forgets those of a module that it is told of under two names."""
    vit = make_vit()
    vit.blocks[2].mlp = vit.blocks[1].mlp
    before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    assert {"blocks.1.mlp.fc1", "blocks.2"} <= called(vit).keys()
    torch.testing.assert_close(dict(vit.state_dict()), before)
