"""timm's Eva: a ViT with rotary positions and gated MLPs (DINOv3, EVA-02, Perception Encoder, RoPE-ViT)."""

import torch
from timm.models.eva import Eva as TimmEva
from timm.models.eva import EvaBlock, EvaBlockPostNorm
from torch import Tensor, nn

from .stages import Stage
from .vision_transformer import ViT


class Eva(ViT):
    title = "Eva"
    network = TimmEva
    attentions = ("attn",)
    mlps = ("mlp",)
    norms = {"norm1": ("norm1", r"attn\.norm"), "norm2": ("norm2", r"mlp\.norm")}  # noqa: RUF012
    operations = (*ViT.operations, "attn.gate")
    readout = ("head", "attn_pool")
    norm_after = (EvaBlockPostNorm,)
    residual = (EvaBlock,)
    steps = ("forward_features", "forward_head", "_pos_embed", "pool")
    norm_after_pool = "use_fc_norm"

    def admit(self, vit, tokens):
        for block in vit.blocks:
            leave_unrotated(block.attn)

    def _stages(self, vit):
        if vit.patch_drop is not None:
            return []  # positions then depend on what was dropped
        return [
            Stage.module(vit, "patch_embed"),
            Stage("pos_embed", ("cls_token", "reg_token", "pos_embed", "pos_drop"), lambda x: vit._pos_embed(x)[0]),
            Stage.module(vit, "norm_pre"),
            *(_block(vit, i) for i in range(len(vit.blocks))),
            Stage.module(vit, "norm"),
            Stage("pool", ("attn_pool",), vit.pool),
            Stage.module(vit, "fc_norm"),
            Stage.module(vit, "head_drop"),
        ]


def _block(vit: TimmEva, i: int) -> Stage:
    def run(x: Tensor) -> Tensor:
        return vit.blocks[i](x, rope=_rope(vit, i))

    return Stage(f"blocks.{i}", (f"blocks.{i}", "rope"), run)


def _rope(vit: TimmEva, i: int) -> Tensor | None:
    """What rotates q and k in a block, as timm's forward has it."""
    if vit.rope is None:
        return None
    known = getattr(vit.rope, "feat_shape", None) is not None
    rope = vit.rope.get_embed() if known else vit.rope.get_embed(vit.patch_embed.grid_size)
    return rope[i] if vit.rope_mixed else rope


def leave_unrotated(attn: nn.Module) -> None:
    """Let prompts after the prefix pass attention as the prefix does: no rotation, since they have no position."""
    if _turn_by_nothing not in attn._forward_pre_hooks.values():
        attn.register_forward_pre_hook(_turn_by_nothing, with_kwargs=True)


def _turn_by_nothing(attn: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Rotations (..., patches, 2 d) begin with one by nothing (sine 0, cosine 1) for every prompt."""
    rope = kwargs.get("rope")
    prompts = 0 if rope is None else args[0].shape[1] - attn.num_prefix_tokens - rope.shape[-2]
    if prompts > 0:
        sine, cosine = rope.new_zeros(*rope.shape[:-2], prompts, rope.shape[-1]).chunk(2, dim=-1)
        kwargs = {**kwargs, "rope": torch.cat((torch.cat((sine, cosine + 1), dim=-1), rope), dim=-2)}
    return args, kwargs
