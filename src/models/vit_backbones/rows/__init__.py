"""The rows of the model zoo, a file for each kind of publisher's files."""

from ..backbone import HALF, Backbone
from ..convert import google
from . import hierarchical, image_text, self_supervised, supervised

MODEL_ZOO: dict[str, Backbone] = {
    # The demo's: pre-trained on letters and symbols by `python -m src.tools.pretrain_demo`.
    "vit_micro_glyphs": Backbone(
        "vit_base_patch16_224",
        ("vit_micro_glyphs.npz",),
        google,
        "it comes with ViTune: install that again",
        "apache-2.0",
        mean_std=HALF,
        interpolation="bilinear",
        arguments=dict(img_size=32, patch_size=4, embed_dim=64, depth=4, num_heads=4),
    ),
    **supervised.ROWS,
    **self_supervised.ROWS,
    **image_text.ROWS,
    **hierarchical.ROWS,
}

# Other names for a row: VPT's and FreqFiT's, and those that timm had when SSF and others used them.
ALIASES = {
    "sup_vitb8": "sup_vitb8_imagenet21k",
    "sup_vitb16": "sup_vitb16_imagenet21k",
    "sup_vitl16": "sup_vitl16_imagenet21k",
    "imagenet_supervised": "sup_vitb16_imagenet21k",
    "vit_tiny_patch16_224_in21k": "augreg_vitti16_imagenet21k",
    "vit_small_patch32_224_in21k": "augreg_vits32_imagenet21k",
    "vit_small_patch16_224_in21k": "augreg_vits16_imagenet21k",
    "vit_base_patch32_224_in21k": "augreg_vitb32_imagenet21k",
    "vit_base_patch16_224_in21k": "augreg_vitb16_imagenet21k",
    "vit_base_patch8_224_in21k": "augreg_vitb8_imagenet21k",
    "vit_large_patch16_224_in21k": "augreg_vitl16_imagenet21k",
}
