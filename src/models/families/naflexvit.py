"""timm's NaFlexVit: a ViT for images of any shape (SigLIP 2 NaFlex, RADIO).

Images of one size come as they are. Images that keep their aspect ratio come as patches (see patches.py): what fills up
a batch is masked in attention and in pooling.
"""

from collections.abc import Callable
from itertools import islice

from timm.models.eva import EvaBlock
from timm.models.naflexvit import NaFlexVit
from torch import Tensor, nn
from torch.nn import functional as F

from ..patches import PLACE, places, unpack
from .eva import Eva, leave_unrotated
from .stages import Stage, Tokens
from .vision_transformer import ViT

# Between stages: tokens (B, prefix + N, D), with the places (B, N, 3) of patches that are an image's in its own shape.
Passing = Tensor | tuple[Tensor, Tensor]


class NaFlex(ViT):
    title = "NaFlex"
    network = NaFlexVit
    operations = Eva.operations
    other_operations = r"embeds\.(proj|norm)"
    patches = "embeds"
    projection = r"embeds\.proj"
    class_token = "embeds.cls_token"
    residual = (*ViT.residual, EvaBlock)
    steps = ("forward_features", "forward_head", "_forward_embeds", "_pool")

    def tokens(self, vit, pool):
        rows, cols = vit.embeds.dynamic_feat_size(self.image_size(vit))
        patch = vit.embeds.patch_size
        return Tokens(vit.num_prefix_tokens, rows, cols, vit.embed_dim, len(vit.blocks), pool=pool, patch=patch)

    def admit(self, vit, tokens):
        for block in vit.blocks:
            if vit.rope is not None:
                leave_unrotated(block.attn)
            _let_read(block.attn)

    def can_change_pool(self, vit):
        return type(vit)._pool is NaFlexVit._pool

    def native_patch(self, vit):
        dropping = vit.patch_drop is not None
        if dropping or not vit.embeds.is_linear or not vit.embeds.channels_last:
            why = "drops patches in training" if dropping else "does not embed patches by a linear map"
            raise ValueError(f"this NaFlexVit takes images of one size only, since it {why}: set DATA.RESIZE crop")
        return tuple(vit.embeds.patch_size)

    def pooled(self, vit, images):
        if not isinstance(images, dict) and images.ndim == 4:
            return super().pooled(vit, images)
        seen = images if isinstance(images, dict) else unpack(images)  # as timm's own loader has them
        coord, valid = seen["patch_coord"], seen["patch_valid"]
        found = vit.forward_features(seen["patches"], coord, valid, attn_mask=_readable(vit, valid))
        valid = _with_prompts(vit, found["patches"], valid)
        return vit.forward_head(found["patches"], patch_valid=valid, pre_logits=True)

    def _stages(self, vit):
        if vit.patch_drop is not None:
            return []  # positions then depend on what was dropped
        grid = vit.embeds.dynamic_feat_size(self.image_size(vit))
        return [
            Stage("embeds", ("embeds", "norm_pre"), lambda images: _embed(vit, images)),
            *(Stage(f"blocks.{i}", (f"blocks.{i}", "rope"), _block(vit, i, grid)) for i in range(len(vit.blocks))),
            Stage("norm", ("norm",), _each(vit.norm)),
            Stage("pool", ("attn_pool",), lambda x: _pool(vit, x)),
            Stage.module(vit, "fc_norm"),
            Stage.module(vit, "head_drop"),
        ]


def _embed(vit: NaFlexVit, images: Tensor) -> Passing:
    if images.ndim == 4:
        return vit._forward_embeds(images, None, None, None)["patches"]
    seen = unpack(images)
    return vit._forward_embeds(seen["patches"], seen["patch_coord"], None, None)["patches"], images[..., -PLACE:]


def _block(vit: NaFlexVit, i: int, grid: tuple[int, int]) -> Callable[[Passing], Passing]:
    def run(x: Passing) -> Passing:
        if isinstance(x, Tensor):
            return vit.blocks[i](x, **rotated(lambda: vit.rope.get_embed(shape=grid)))
        x, place = x
        seen = places(place)
        patches = x[:, : vit.num_prefix_tokens + place.shape[1]]  # without prompts
        rope = rotated(lambda: vit._generate_rope_naflex(patches, seen["patch_coord"]))
        return vit.blocks[i](x, attn_mask=_readable(vit, seen["patch_valid"]), **rope), place

    def rotated(rope: Callable) -> dict[str, Tensor]:
        """What rotates q and k; mixed rotations come for all blocks."""
        if vit.rope is None:
            return {}
        return {"rope": next(islice(rope(), i, None)) if vit.rope_is_mixed else rope()}

    return run


def _each(module: nn.Module) -> Callable[[Passing], Passing]:
    return lambda x: module(x) if isinstance(x, Tensor) else (module(x[0]), x[1])


def _pool(vit: NaFlexVit, x: Passing) -> Tensor:
    if isinstance(x, Tensor):
        return vit._pool(x)
    x, place = x
    return vit._pool(x, patch_valid=_with_prompts(vit, x, places(place)["patch_valid"]))


def _readable(vit: NaFlexVit, valid: Tensor) -> Tensor:
    """Which tokens others may read: patches (B, N) -> (B, 1, 1, prefix + N).

    Unlike timm's own mask, padding may read the image too: nothing reads padding, so that this changes nothing, and no
    token has nothing to read.
    """
    return F.pad(valid, (vit.num_prefix_tokens, 0), value=True)[:, None, None]


def _with_prompts(vit: NaFlexVit, x: Tensor, valid: Tensor) -> Tensor:
    """Which tokens behind the prefix are pooled: prompts, where they are still there, and patches that are valid."""
    return F.pad(valid, (x.shape[1] - vit.num_prefix_tokens - valid.shape[1], 0), value=True)


def _let_read(attn: nn.Module) -> None:
    """Let all tokens read the prompts that stand after the prefix, where there is a mask of the others."""
    if _let_read_more not in attn._forward_pre_hooks.values():
        attn.register_forward_pre_hook(_let_read_more, with_kwargs=True)


def _let_read_more(attn: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    mask = kwargs.get("attn_mask")
    if mask is not None:  # whatever is before the patches may be read: prompts may as well come first
        kwargs = {**kwargs, "attn_mask": F.pad(mask, (args[0].shape[1] - mask.shape[-1], 0), value=True)}
    return args, kwargs
