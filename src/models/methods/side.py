"""Side-tuning: a small trained network beside the frozen ViT (Zhang et al., 2020, arXiv:1912.13503), as VPT has it.

The side network is torchvision's AlexNet up to its pooled feature maps. It reads the images where the ViT's patch
embedding does, and its answer joins the ViT's pooled features.
"""

from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ...configs.keys import Section, location
from ...utils.shipped import shipped
from ...utils.text import a_kind
from ..families import family_of
from ..method import DoesNotFit, Method
from ..taps import Reader
from ..vit_backbones.fit import require_fit
from ..vit_backbones.tensors import read_state, reading

URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
SMALLEST = 64  # AlexNet's pooling leaves nothing of smaller images


class SideNetwork(Reader):
    """Reads images (B, 3, H, W) and keeps ``features`` (B, D) of its own until the end of this forward."""

    def __init__(self, dim: int, weights: str):
        super().__init__()
        from torchvision.models import alexnet  # here: torchvision.models is slow to import, and only this needs it

        with torch.device("meta"):  # most of it is a classifier, which has no place here
            full = alexnet(weights=None)
        self.maps, self.pool = full.features.to_empty(device=torch.empty(()).device), full.avgpool
        if weights:
            path = Path(weights)
            path = path if path.is_absolute() or path.exists() else shipped("pretrained").parent / path
            if not path.is_file():
                raise FileNotFoundError(
                    f"{weights} is missing: side-tuning starts from AlexNet's ImageNet weights. Download {URL} to it, "
                    'or set MODEL.SIDE.WEIGHTS "" for a random start'
                )
            with reading(path, "AlexNet"):
                state = read_state(path)
            require_fit(full, state, path, "torchvision's AlexNet")
            start = {name: state[f"features.{name}"] for name in self.maps.state_dict()}
            self.maps.load_state_dict(start)
        else:
            for module in self.maps:
                if isinstance(module, nn.Conv2d):
                    module.reset_parameters()
        self.projection = nn.Linear(256 * 6 * 6, dim, bias=False)
        self.features: Tensor | None = None

    def read(self, images: Tensor) -> Tensor:
        return images

    def answer(self, images: Tensor) -> None:
        x = images
        if min(x.shape[-2:]) < SMALLEST:
            size = [max(SMALLEST, side) for side in x.shape[-2:]]
            x = nn.functional.interpolate(x, size, mode="bilinear", align_corners=False)
        self.features = self.projection(self._pooled(self.maps(x)).flatten(1))

    def _pooled(self, maps: Tensor) -> Tensor:
        """AlexNet's adaptive average of maps (B, C, rows, cols) -> (B, C, 6, 6).

        torch's has no deterministic gradient on a GPU: there, where one is asked for, it is two products with a matrix.
        """
        if maps.shape[-2:] == self.pool.output_size:  # of images of 224x224
            return maps
        if not (maps.is_cuda and torch.are_deterministic_algorithms_enabled()):
            return self.pool(maps)
        pairs = zip(maps.shape[-2:], self.pool.output_size, strict=True)
        rows, cols = (averages(size, to, maps.device).to(maps.dtype) for size, to in pairs)
        return rows @ maps @ cols.T


def averages(size: int, to: int, device: torch.device) -> Tensor:
    """(to, size): row i averages those entries that adaptive pooling of ``size`` to ``to`` entries averages."""
    row, entry = torch.arange(to, device=device)[:, None], torch.arange(size, device=device)
    first, last = row * size // to, -(-(row + 1) * size // to)
    return ((first <= entry) & (entry < last)) / (last - first)


class Side(Method):
    """features = s * vit + (1 - s) * projection(AlexNet(images)), s = sigmoid(alpha), which starts at one half."""

    paper = "Zhang et al., 2020, arXiv:1912.13503"
    learns = "an AlexNet beside the ViT"
    one_grid = "AlexNet reads images, not their patches"
    starts_pretrained = False
    attaches_without_files = False
    for_any_backbone = True
    without_files_to_count = {"WEIGHTS": ""}  # noqa: RUF012

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # AlexNet's ImageNet weights as torchvision publishes them; "": random.
        cfg.WEIGHTS = location("pretrained/alexnet-owt-7be5be79.pth")
        return cfg

    @classmethod
    def require_parts(cls, cfg, vit, tokens):
        """It fits every ViT; AlexNet's weights are not read."""

    def attach(self, cfg, vit, tokens):
        site = family_of(vit).stem(vit)
        if not site:
            raise DoesNotFit(f"it reads the images where a network does, and that place in {a_kind(vit)} is unknown")
        self.before(site, SideNetwork(vit.head_hidden_size, cfg.WEIGHTS))
        self.alpha = nn.Parameter(torch.zeros(()))
        self.without_files = {"WEIGHTS": ""}

    def features(self, pooled):
        network = self.taps[0]
        own, network.features = network.features, None
        share = self.alpha.sigmoid()
        return share * pooled + (1 - share) * own
