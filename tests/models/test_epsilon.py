"""Weights for another epsilon of the layer norms compute the same features."""

import pytest
import timm
import torch
from conftest import make_vit, randomise
from torch import nn

from src.models.vit_backbones.epsilon import epsilon_of, with_epsilon


@pytest.mark.parametrize(
    "options", [{}, {"init_values": 0.3}, {"pre_norm": True}, {"reg_tokens": 2, "global_pool": "avg"}]
)
def test_the_function_stays_the_same(options, images):
    vit = make_vit(**options).double()
    randomise(vit, 0.05)
    other = make_vit(**options).double()
    for norm in vit.modules():
        if isinstance(norm, nn.LayerNorm):
            norm.eps = 1e-3
    assert (epsilon_of(vit), epsilon_of(other)) == (1e-3, 1e-6)
    other.load_state_dict(vit.state_dict())
    images = images.double()
    assert (other(images) - vit(images)).abs().max() > 1e-4
    other.load_state_dict(with_epsilon(vit.state_dict(), 1e-3, 1e-6))
    torch.testing.assert_close(other(images), vit(images), atol=1e-9, rtol=1e-9)


def test_networks_of_one_epsilon_are_left_alone():
    state = make_vit().state_dict()
    assert with_epsilon(state, 1e-6, 1e-6) is state
    with torch.device("meta"):
        assert epsilon_of(timm.create_model("resnet18")) == 0  # no layer norm
