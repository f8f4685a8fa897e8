"""What a ViT's features are pooled from: its class token, or the average of its patches (``MODEL.POOL``)."""

from torch import nn

from ..utils.text import a_kind
from .families import family_of


def set_pool(vit: nn.Module, pool: str, norm_of_all: bool = False) -> None:
    """Pool ``vit`` by "token" or "avg", with the norms that it has; "" leaves it as it is.

    A norm before the average stays before it; one after the average then follows the class token. No norm is added,
    and none is left out.

    Args:
        norm_of_all: a norm after the average was pre-trained on every token, the class token among them (MAE). Also
            set when a tuned model is read back, whose choice has been made.

    Raises:
        ValueError: the ViT has no class token, pools in a way of its own, or its final norm has only seen averages.
    """
    if not pool or pool == getattr(vit, "global_pool", ""):
        return
    if not family_of(vit).can_change_pool(vit):
        raise ValueError(f"MODEL.POOL is for ViTs of tokens: what {a_kind(vit)} pools cannot be changed")
    if vit.global_pool not in ("token", "avg"):
        raise ValueError(
            f"MODEL.POOL {pool!r} would drop what this ViT learned for its {vit.global_pool!r} pooling: leave it out"
        )
    if pool == "token" and family_of(vit).class_token_of(vit) is None:
        raise ValueError("MODEL.POOL token: this ViT has no class token; its patches are averaged")
    if pool == "token" and not isinstance(vit.fc_norm, nn.Identity) and not norm_of_all:
        raise ValueError(
            "MODEL.POOL token: the final norm of these weights was trained on an average of the patches, or not at "
            "all, and the class token has none"
        )
    vit.global_pool = pool
