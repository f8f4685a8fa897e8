"""What taps make of convolutions, measured: padding by timm's rules, dilation, weights that are standardised."""

import pytest
import timm.layers
import torch
from conftest import make_model, randomise
from timm.models.metaformer import MetaFormer
from torch import nn

from src.models.affine import measure
from src.models.merge import load_merged, merged
from src.models.taps import ScaleShift, scale_shift_of
from src.models.twin import twin

CONVOLUTIONS = {
    "plain": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "grouped": lambda: nn.Conv2d(4, 8, 3, groups=2, bias=False),
    "dilated": lambda: nn.Conv2d(4, 6, 3, dilation=2, padding="same"),
    "same": lambda: timm.layers.Conv2dSame(4, 6, 3, stride=2),
    "scaled": lambda: timm.layers.ScaledStdConv2d(4, 6, 3),
    "scaled same": lambda: timm.layers.ScaledStdConv2dSame(4, 6, 3, stride=2, bias=False),
}


class Mixing(nn.Module):
    """Mixes the channels of maps."""

    def __init__(self, channels: int):
        super().__init__()
        self.map = nn.Conv2d(channels, channels, 1)

    def forward(self, y):
        return y + self.map(y)


def tapped(op: nn.Module, *taps: nn.Module) -> tuple[nn.Module, list]:
    """``op`` with taps after it, and what ``measure`` gets of them."""
    for tap in taps:
        op.register_forward_hook(lambda _, args, y, tap=tap: tap(y))
    return op.double(), [("it", "after", tap.double()) for tap in reversed(taps)]


@pytest.mark.parametrize("name", CONVOLUTIONS)
@torch.no_grad()
def test_scales_and_shifts_fold_into_every_convolution(name):
    torch.manual_seed(0)
    plain = CONVOLUTIONS[name]().double()
    taps = [ScaleShift(plain.out_channels, channels_first=True) for _ in range(2)]
    op, known = tapped(CONVOLUTIONS[name](), *taps)
    op.load_state_dict(plain.state_dict())
    found = measure(op, known, "it")
    for key, value in found.items():
        if getattr(plain, key) is None:
            plain.bias = nn.Parameter(value)
        getattr(plain, key).copy_(value)
    x = torch.randn(2, 4, 9, 9).double()
    torch.testing.assert_close(plain(x), op(x), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(twin(op)(x), op.forward(x))


@torch.no_grad()
def test_what_mixes_channels_folds_where_the_weight_is_free():
    plain = nn.Conv2d(4, 6, 3, padding=1)
    op, known = tapped(nn.Conv2d(4, 6, 3, padding=1), Mixing(6))
    op.load_state_dict(plain.state_dict())
    found, x = measure(op, known, "it"), torch.randn(2, 4, 9, 9).double()
    torch.testing.assert_close(nn.functional.conv2d(x, found["weight"], found["bias"], padding=1), op(x))
    with pytest.raises(ValueError, match="it is not affine"):
        measure(*tapped(timm.layers.ScaledStdConv2d(6, 6, 3), Mixing(6)), "it")


@torch.no_grad()
def test_a_standardised_weight_takes_up_shifts_alone():
    shift = ScaleShift(6, channels_first=True)
    with pytest.raises(ValueError, match="is a StdConv2d, which standardises its weight"):
        measure(*tapped(timm.layers.StdConv2d(4, 6, 3, bias=False), shift), "it")
    shift.scale.fill_(1.0)
    found = measure(*tapped(timm.layers.StdConv2d(4, 6, 3, bias=False), shift), "it")
    torch.testing.assert_close(found, {"bias": shift.shift.flatten()})


@pytest.mark.parametrize("name", ["test_nfnet", "tf_efficientnet_lite0"])
@torch.no_grad()
def test_ssf_folds_into_networks_of_such_convolutions(name):
    model = make_model("ssf", vit=timm.create_model(name, num_classes=0)).double()
    randomise(model)
    images = torch.randn(2, 3, 64, 64).double()
    plain = timm.create_model(name, num_classes=0).double().eval()
    load_merged(plain, merged(model).state)
    torch.testing.assert_close(plain(images), model.features(images), atol=0, rtol=1e-6)


@torch.no_grad()
def test_norms_without_a_bias_get_one():
    """timm's MetaFormer has layer and group norms of this kind."""

    def network() -> nn.Module:
        vit = MetaFormer(num_classes=0, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)).double().eval()
        vit.pretrained_cfg = {"input_size": (3, 64, 64)}
        return vit

    vit = network()
    plain, model = network(), make_model("ssf", vit=vit).double()
    randomise(model)
    images = torch.randn(2, 3, 64, 64).double()
    load_merged(plain, merged(model).state)
    assert plain.stages[0].blocks[0].norm1.bias.any()
    torch.testing.assert_close(plain(images), model.features(images), atol=0, rtol=1e-6)


@torch.no_grad()
def test_batch_norms_of_tokens_have_their_channels_last():
    """As in LeViT."""
    plain, tap = nn.BatchNorm1d(6).double().eval(), scale_shift_of(nn.BatchNorm1d(6), 6)
    op, known = tapped(nn.BatchNorm1d(6).eval(), tap)
    x, found = torch.randn(5, 6).double(), measure(op, known, "it")
    plain.load_state_dict(plain.state_dict() | found)
    torch.testing.assert_close(plain(x), op(x))
