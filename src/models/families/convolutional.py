"""Convolutional networks of timm: neither attention nor MLPs, and every convolution and norm is an operation."""

from timm.models.efficientnet import EfficientNet as TimmEfficientNet
from timm.models.mobilenetv3 import MobileNetV3 as TimmMobileNetV3
from timm.models.regnet import RegNet as TimmRegNet
from timm.models.resnet import ResNet as TimmResNet
from timm.models.resnetv2 import ResNetV2 as TimmResNetV2
from torch import nn

from .base import NORMS, Family, activates
from .names import is_inside, matching
from .stages import Stage


class Convolutional(Family):
    """What these families share, also with networks that have attention in some blocks.

    ``chain`` are the modules that make maps of images, one after the other, ``head`` those that make features of maps.
    ``no_operations`` are linear maps of something other than features, as regular expressions.
    """

    attentions = ()
    mlps = ()
    absent = ("attn", "mlp", "norm1", "norm2")
    others = r".*"  # convolutions have no role
    norms = {"norm1": (r".*(norm|bn)\d?",), "norm2": ()}  # noqa: RUF012
    patches = "stem"
    final_norms = ()
    readout = ("head.fc",)
    channels = "first"
    any_size = True
    chain: tuple[str, ...]
    head: tuple[str, ...] = ("head",)
    no_operations: tuple[str, ...] = ()

    def norms_of(self, block, role):
        return [name for name in super().norms_of(block, role) if not activates(block.get_submodule(name))]

    def operations_of(self, vit):
        kinds = (nn.Linear, nn.Conv2d, *NORMS)
        found = [n for n, m in vit.named_modules() if isinstance(m, kinds) and any(True for _ in m.parameters())]
        spare = {*matching(self.no_operations, found), *(name for name in found if activates(vit.get_submodule(name)))}
        return [name for name in found if name not in spare and not any(is_inside(name, n) for n in self.readout)]

    def final_norm(self, vit, pooled):
        return ""  # it is among the operations

    def _stages(self, vit):
        names = []
        for name in self.chain:
            inside = vit.get_submodule(name)
            parts = [f"{name}.{own}" for own, _ in inside.named_children()]
            names += parts if isinstance(inside, nn.Sequential) else [name]
        head = Stage("head", self.head, lambda x: vit.forward_head(x, pre_logits=True))
        return [*(Stage.module(vit, name) for name in names), head]


class ResNet(Convolutional):
    title = "ResNet"
    network = TimmResNet
    block = r"layer\d\.\d+"
    patches = "conv1"
    projection = r"conv1(\.\d)?"
    readout = ("fc",)
    chain = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    head = ("global_pool",)


class ResNetV2(Convolutional):
    title = "ResNet v2"
    network = TimmResNetV2
    block = r"stages\.\d+\.blocks\.\d+"
    projection = r"stem\.conv\d?"
    final_norms = ("norm",)
    chain = ("stem", "stages", "norm")


class RegNet(Convolutional):
    title = "RegNet"
    network = TimmRegNet
    block = r"s\d\.b\d+"
    projection = r"stem\.conv"
    chain = ("stem", "s1", "s2", "s3", "s4", "final_conv")


class EfficientNet(Convolutional):
    title = "EfficientNet"
    network = TimmEfficientNet
    block = r"blocks\.\d+\.\d+"
    patches = "conv_stem"
    projection = "conv_stem"
    final_norms = ("bn2",)
    readout = ("classifier",)
    chain = ("conv_stem", "bn1", "blocks", "conv_head", "bn2")
    head = ("global_pool",)


class MobileNetV3(EfficientNet):
    title = "MobileNet v3"
    network = TimmMobileNetV3
    final_norms = ("norm_head",)
    chain = ("conv_stem", "bn1", "blocks")
    head = ("global_pool", "conv_head", "norm_head")
