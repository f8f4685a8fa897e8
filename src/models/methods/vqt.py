"""VQT: learned queries read every block and answer the head (Tu et al., 2023, arXiv:2212.03220).

The queries join a block's tokens on the query side of attention only, so that the ViT's own features stay as they are.
Their answers, what the rest of the block makes of them, join what the head sees.

The unifying study's code (Mai et al., 2025, arXiv:2409.16434) discards the answers and returns the first tokens
instead, so that its queries have zero gradient, and normalises over the tokens; ours follows the paper.
"""

import math

import torch
from fvcore.common.config import CfgNode
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from ...configs.keys import Section, flag, number, whole
from ..method import DoesNotFit, Method
from ..taps import Keep, Reader, uniform


class Queries(Reader):
    """Keeps ``answers`` (B, T, D) to its queries until the end of this forward.

    It reads the block's own keys and values (B, N, 2 D); ``keep`` has them, and its q (B, N, 3 D). The block's modules
    are called, with the taps at them. Taps at ``attn`` as a whole are not: attention with more queries than keys
    happens here.
    """

    def __init__(self, block: Block, keep: Keep, queries: nn.Parameter, dropout: float):
        super().__init__()
        self.block, self.keep = (block,), (keep,)  # in tuples: this tap does not own them
        self.queries = queries  # (1, T, D)
        self.dropout = nn.Dropout(dropout)
        self.answers: Tensor | None = None

    def read(self, tokens: Tensor) -> Tensor:
        (keep,) = self.keep
        return keep.take()[..., tokens.shape[-1] :]

    def answer(self, read: Tensor) -> None:
        (block,) = self.block
        x = self.dropout(self.queries.expand(read.shape[0], -1, -1))
        x = x + block.drop_path1(block.ls1(self.attend(block.attn, block.norm1(x), read)))
        self.answers = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))

    def attend(self, attn: Attention, x: Tensor, keys_values: Tensor) -> Tensor:
        """What the queries x (B, T, D) read from the tokens: (B, T, D)."""
        (keep,) = self.keep
        k, v = split_heads(keys_values, attn, 2)
        q, _, _ = split_heads(attn.qkv(x), attn, 3)
        keep.take()  # the queries' own
        q, k = attn.q_norm(q), attn.k_norm(k)
        dropout = attn.attn_drop.p if attn.training else 0.0
        y = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, dropout_p=dropout)
        return attn.proj_drop(attn.proj(attn.norm(y.transpose(1, 2).flatten(2))))


def split_heads(joined: Tensor, attn: Attention, count: int) -> tuple[Tensor, ...]:
    """(B, N, count D) -> ``count`` tensors (B, heads, N, D / heads): q, k, v or k, v."""
    return joined.unflatten(-1, (count, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class VQT(Method):
    """T L D parameters; the head sees D + T L D channels: the pooled features and every block's answers."""

    paper = "Tu et al., 2023, arXiv:2212.03220"
    learns = "{queries} in every block; the head sees the answers too"
    one_grid = "its queries read what fills up an image's patches too"

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # Queries per block.
        cfg.NUM_QUERIES = whole(1, low=1)
        # Dropout on the queries, in training only.
        cfg.DROPOUT = number(0.1, low=0, below=1)
        # Scale every output of a query to length 1 before the head sees it.
        cfg.NORMALIZE = flag(False)
        return cfg

    @classmethod
    def words(cls, cfg):
        return super().words(cfg) | {"queries": "a query" if cfg.NUM_QUERIES == 1 else f"{cfg.NUM_QUERIES} queries"}

    def attach(self, cfg, vit, tokens):
        self.normalize = cfg.NORMALIZE
        self.width = len(vit.blocks) * cfg.NUM_QUERIES * tokens.dim
        bound = math.sqrt(6 / (3 * math.prod(tokens.patch) + tokens.dim))  # as VPT
        for i, block in enumerate(vit.blocks):
            attn = getattr(block, "attn", None)
            if type(block) is not Block or type(attn) is not Attention or getattr(attn, "gate", None) is not None:
                gated = " with a gate" if getattr(attn, "gate", None) is not None else ""
                raise DoesNotFit(
                    f"it computes attention itself, for timm's Attention in a Block only; blocks.{i} is a "
                    f"{type(block).__name__}" + (f" with {type(attn).__name__}{gated}" if attn is not None else "")
                )
            keep = Keep()
            self.after(f"blocks.{i}.attn.qkv", keep)
            queries = uniform((1, cfg.NUM_QUERIES, tokens.dim), bound)
            self.after(f"blocks.{i}", Queries(block, keep, queries, cfg.DROPOUT))

    def num_features(self, dim):
        return dim + self.width

    def features(self, pooled):
        joined = [pooled]
        for tap in self.taps:
            if isinstance(tap, Queries):
                answers, tap.answers = tap.answers, None
                answers = F.normalize(answers, dim=-1) if self.normalize else answers
                joined.append(answers.flatten(1))
        return torch.cat(joined, dim=1)
