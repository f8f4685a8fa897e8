"""VPT: learned prompt tokens between the prefix and the patches (Jia et al., 2022, arXiv:2203.12119)."""

import math

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ...configs.keys import Section, flag, number, one_of, whole
from ..families import family_of
from ..method import Method
from ..sites import blocks
from ..taps import require_grid, uniform

POOL_TYPES = ("original", "imgprompt_pool", "img_pool", "prompt_pool")


class Insert(nn.Module):
    """Put prompts between the prefix and the last ``num_patches`` tokens, in place of what stood there.

    (B, N, D) -> (B, prefix + P + num_patches, D). ``projection`` maps the prompts' channels to D; it belongs to the
    method, which shares it among the blocks.
    """

    changes_tokens = True

    def __init__(self, prefix: int, num_patches: int, prompts: nn.Parameter, projection: nn.Module, dropout: float):
        super().__init__()
        self.prefix, self.num_patches = prefix, num_patches
        self.prompts = prompts  # (1, P, channels)
        self.projection = (projection,)  # in a tuple: this tap does not own it
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        (projection,) = self.projection
        tokens = self.prefix + self.num_patches
        require_grid(x, tokens, tokens + self.prompts.shape[1])
        prompts = self.dropout(projection(self.prompts).expand(x.shape[0], -1, -1)).to(x.dtype)
        return torch.cat((x[:, : self.prefix], prompts, x[:, -self.num_patches :]), dim=1)


class Remove(nn.Module):
    """Take tokens ``start`` to ``stop`` out: (B, N, D) -> (B, N - (stop - start), D); no stop: all from start on."""

    changes_tokens = True

    def __init__(self, start: int, stop: int | None):
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, x: Tensor) -> Tensor:
        if self.stop is None:
            return x[:, : self.start]
        return torch.cat((x[:, : self.start], x[:, self.stop :]), dim=1)


class MeanIntoClass(nn.Module):
    """Put the mean of tokens ``start`` to ``stop`` in the class token's place: it is then normalised and pooled."""

    changes_tokens = True

    def __init__(self, start: int, stop: int | None):
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x[:, self.start : self.stop].mean(1, keepdim=True), x[:, 1:]), dim=1)


class Prompt(Method):
    """VPT-Shallow (P D parameters) or VPT-Deep (P D in every block)."""

    paper = "Jia et al., 2022, arXiv:2203.12119"
    learns = "{NUM_TOKENS} prompt tokens before {place}"
    adamw_lr = 0.01
    starts_pretrained = False

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # Prompt tokens per block.
        cfg.NUM_TOKENS = whole(5, low=1, unit="tokens")
        # True: new prompts before every block (VPT-Deep); False: prompts before the first block only, which stay
        # (VPT-Shallow).
        cfg.DEEP = flag(False)
        # Dropout on the prompts, in training only.
        cfg.DROPOUT = number(0.0, low=0, below=1)
        # Channels of the prompts, mapped to the ViT's by one shared linear map; -1: the ViT's own, no map.
        cfg.PROJECT = whole(-1, low=1, also=(-1,), unit="channels")
        # VPT-Deep: how many blocks after the first get prompts of their own; 0: all. The last of them pass on through
        # the blocks that follow.
        cfg.NUM_DEEP_LAYERS = whole(0, low=0, unit="blocks")
        # VPT-Deep: prompts only in the last NUM_DEEP_LAYERS blocks, none at the input.
        cfg.REVERSE_DEEP = flag(False)
        # VPT-Deep: the same prompts in every block after the first.
        cfg.DEEP_SHARED = flag(False)
        # VPT-Deep: take the prompts out before the first block that gets none of its own.
        cfg.FORWARD_DEEP_NOEXPAND = flag(False)
        # What is pooled. "original": the class token, or for average-pooled backbones prompts and patches (with
        # MODEL.POOL avg: patches); for "imgprompt_pool" (prompts and patches), "img_pool" (patches) and "prompt_pool"
        # the mean, then the final norm. "img_pool" takes the prompts out after the last block, also before attention
        # pooling; so does the unifying study (Mai et al., 2025), whose VPT-Shallow has them in the first block only
        # (FORWARD_DEEP_NOEXPAND).
        cfg.VIT_POOL_TYPE = one_of("original", POOL_TYPES)
        # Keep the prompts at their random start, as VPT's "prompt-noupdate".
        cfg.FROZEN = flag(False)
        return cfg

    @staticmethod
    def problems(cfg):
        if not cfg.DEEP and (cfg.NUM_DEEP_LAYERS or cfg.REVERSE_DEEP or cfg.DEEP_SHARED):
            return ["NUM_DEEP_LAYERS, REVERSE_DEEP and DEEP_SHARED need DEEP True"]
        return []

    @classmethod
    def words(cls, cfg):
        place = "every block" if cfg.DEEP else "the first block, or every block (`MODEL.PROMPT.DEEP`)"
        return super().words(cfg) | {"place": place}

    def attach(self, cfg, vit, tokens):
        sites, count = list(blocks(vit)), cfg.NUM_TOKENS
        depth = len(sites)
        channels = tokens.dim if cfg.PROJECT == -1 else cfg.PROJECT
        self.projection = nn.Identity()
        if cfg.PROJECT != -1:
            self.projection = nn.Linear(channels, tokens.dim)
            nn.init.kaiming_normal_(self.projection.weight, mode="fan_out", a=0)
        bound = math.sqrt(6.0 / (3 * math.prod(tokens.patch) + channels))  # Xavier uniform, as VPT's code has it

        own = self._blocks_with_prompts(cfg, depth)
        for i in own:
            if i == own[0] or i == 1 or not cfg.DEEP_SHARED:
                prompts = uniform((1, count, channels), bound)
                tap = Insert(tokens.prefix, tokens.rows * tokens.cols, prompts, self.projection, cfg.DROPOUT)
            self.before(sites[i], tap)
            tokens.prompts[i] = count
        stop = own[-1] + 1  # the first block after those with prompts of their own
        if cfg.FORWARD_DEEP_NOEXPAND and stop < depth:
            self.before(sites[stop], Remove(tokens.prefix, tokens.prefix + count))
        else:
            tokens.prompts[stop:] = [count] * (depth + 1 - stop)
        family_of(vit).admit(vit, tokens)
        self._pool(cfg, vit, tokens, sites[-1])
        if cfg.FROZEN:
            self.requires_grad_(False)

    @staticmethod
    def _blocks_with_prompts(cfg, depth: int) -> list[int]:
        if not cfg.DEEP:
            return [0]
        deep = cfg.NUM_DEEP_LAYERS or (depth if cfg.REVERSE_DEEP else depth - 1)
        if deep > (depth if cfg.REVERSE_DEEP else depth - 1):
            raise ValueError(f"MODEL.PROMPT.NUM_DEEP_LAYERS is {deep}, too many for a ViT with {depth} blocks")
        return list(range(depth - deep, depth)) if cfg.REVERSE_DEEP else list(range(1 + deep))

    def _pool(self, cfg, vit, tokens, last: str):
        """A last tap that leaves what VIT_POOL_TYPE wants pooled."""
        first, count = tokens.prefix, tokens.prompts[-1]
        wanted = {
            "imgprompt_pool": (first, None),
            "img_pool": (first + count, None),
            "prompt_pool": (first, first + count),
        }
        pooled = cfg.VIT_POOL_TYPE
        if pooled == "original" and tokens.pool == "avg" and count:
            pooled = "img_pool"
        if count == 0 and pooled != "original":
            raise ValueError("MODEL.PROMPT.VIT_POOL_TYPE needs prompts that reach the end (FORWARD_DEEP_NOEXPAND)")
        if pooled == "original" or (vit.global_pool == "avg" and pooled == "imgprompt_pool"):
            return
        if pooled != ("prompt_pool" if vit.global_pool == "token" else "img_pool"):
            self.one_grid = f"MODEL.PROMPT.VIT_POOL_TYPE {pooled} does not tell what only fills up an image's patches"
        if vit.global_pool == "token":
            self.after(last, MeanIntoClass(*wanted[pooled]))
        elif vit.global_pool in ("avg", "map") and pooled == "img_pool":
            self.after(last, Remove(first, first + count))
        elif vit.global_pool == "avg":
            self.after(last, Remove(first + count, None))
        else:
            raise ValueError(f"MODEL.PROMPT.VIT_POOL_TYPE cannot change this ViT's {vit.global_pool!r} pooling")
