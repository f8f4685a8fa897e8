"""The same function with layer norms of another epsilon, for networks that have no setting for it."""

import re

from torch import Tensor, nn

# All that adds to the tokens, in a VisionTransformer without and with layer scale.
ADDS = r"cls_token|reg_token|pos_embed|patch_embed\.proj\.(weight|bias)|norm_pre\.(weight|bias)|"
PLAIN, SCALED = r"blocks\.\d+\.(attn\.proj|mlp\.fc2)\.(weight|bias)", r"blocks\.\d+\.ls[12]\.gamma"


def epsilon_of(network: nn.Module) -> float:
    """The epsilon of a network's layer norms, if they have the same; else 0."""
    found = {module.eps for module in network.modules() if isinstance(module, nn.LayerNorm)}
    return found.pop() if len(found) == 1 else 0.0


def with_epsilon(state: dict[str, Tensor], old: float, new: float) -> dict[str, Tensor]:
    """Weights of a timm VisionTransformer whose norms have ``old`` -> those of one with ``new``: the same features.

    A norm of s x with epsilon s^2 e equals that of x with e. So the tokens, and all that is added to them, are
    multiplied by s = sqrt(new / old). Of transformers' ViT, whose epsilon is 1e-12 where timm's is 1e-6, s is 1000.
    """
    if old == new or not old or not new:
        return state
    adds = ADDS + (SCALED if any(re.fullmatch(SCALED, name) for name in state) else PLAIN)
    scale = (new / old) ** 0.5
    return {name: tensor * scale if re.fullmatch(adds, name) else tensor for name, tensor in state.items()}
