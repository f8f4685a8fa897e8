"""Image towers of models that learned from pairs of images and texts."""

from .. import convert
from ..backbone import HALF, OPENAI, Backbone


def _clip(arch: str, file: str, sha256: str) -> Backbone:
    url = f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file}"
    return Backbone(arch, (file,), convert.clip, url, "mit", mean_std=OPENAI, has_text=True)


def _metaclip(arch: str, file: str) -> Backbone:
    url = f"https://dl.fbaipublicfiles.com/MMPT/metaclip/{file}"
    return Backbone(arch, (file,), convert.clip, url, "cc-by-nc-4.0", mean_std=OPENAI, resize="bicubic")


def _siglip(arch: str, file: str, folder: str = "siglip") -> Backbone:
    url = f"https://storage.googleapis.com/big_vision/{folder}/{file}"
    row = dict(mean_std=HALF, pool="map", resize="bicubic")
    return Backbone(arch, (file,), convert.siglip, url, "apache-2.0", **row)


def _siglip2(size: str, patch: int, pixels: int, name: str) -> Backbone:
    side = 378 if (patch, pixels) == (14, 384) else pixels  # the last 6 rows and columns of 384 are never seen
    return _siglip(f"vit_{size}_patch{patch}_siglip_{side}", f"siglip2_{name}{patch}_{pixels}.npz", "siglip2")


def _perception(kind: str, arch: str, name: str, pool: str = "map") -> Backbone:
    file = f"PE-{kind}-{name}.pt"
    url = f"https://huggingface.co/facebook/PE-{kind}-{name}/resolve/main/{file}"
    row = dict(mean_std=HALF, pool=pool, resize="bicubic")
    return Backbone(f"vit_pe_{kind.lower()}_{arch}", (file,), convert.perception, url, "apache-2.0", **row)


ROWS = {
    # CLIP (Radford et al., 2021, arXiv:2103.00020).
    "clip_vitb16": _clip(
        "vit_base_patch16_clip_quickgelu_224",
        "ViT-B-16.pt",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    ),
    "clip_vitb32": _clip(
        "vit_base_patch32_clip_quickgelu_224",
        "ViT-B-32.pt",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    ),
    "clip_vitl14": _clip(
        "vit_large_patch14_clip_quickgelu_224",
        "ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    ),
    "clip_vitl14_336": _clip(
        "vit_large_patch14_clip_quickgelu_336",
        "ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
    ),
    # MetaCLIP (Xu et al., 2024, arXiv:2309.16671), on 2.5 billion pairs or 400 million, and with rewritten captions.
    "metaclip_vitb32": _metaclip("vit_base_patch32_clip_quickgelu_224", "b32_fullcc2.5b.pt"),
    "metaclip_vitb16": _metaclip("vit_base_patch16_clip_quickgelu_224", "b16_fullcc2.5b.pt"),
    "metaclip_vitl14": _metaclip("vit_large_patch14_clip_quickgelu_224", "l14_fullcc2.5b.pt"),
    "metaclip_vith14": _metaclip("vit_huge_patch14_clip_quickgelu_224", "h14_fullcc2.5b.pt"),
    "metaclip_vitbigg14": _metaclip("vit_gigantic_patch14_clip_quickgelu_224", "G14_fullcc2.5b.pt"),
    "metaclip_vith14_altogether": _metaclip("vit_huge_patch14_clip_224", "h14_v1.2_altogether.pt"),
    "metaclip_vitb32_400m": _metaclip("vit_base_patch32_clip_quickgelu_224", "b32_400m.pt"),
    "metaclip_vitb16_400m": _metaclip("vit_base_patch16_clip_quickgelu_224", "b16_400m.pt"),
    "metaclip_vitl14_400m": _metaclip("vit_large_patch14_clip_quickgelu_224", "l14_400m.pt"),
    # MetaCLIP 2 (Chuang et al., 2025, arXiv:2507.22062), on texts of all languages.
    "metaclip2_vith14": _metaclip("vit_huge_patch14_clip_quickgelu_224", "metaclip2_h14_quickgelu_224px_worldwide.pt"),
    "metaclip2_vith14_378": _metaclip("vit_huge_patch14_clip_378", "metaclip2_h14_378px_worldwide.pt"),
    "metaclip2_vitbigg14": _metaclip("vit_gigantic_patch14_clip_224", "metaclip2_bigG14_224px_worldwide.pt"),
    "metaclip2_vitbigg14_378": _metaclip("vit_gigantic_patch14_clip_378", "metaclip2_bigG14_378px_worldwide.pt"),
    # SigLIP (Zhai et al., 2023, arXiv:2303.15343).
    "siglip_vitb16": _siglip("vit_base_patch16_siglip_224", "webli_en_b16_224_63724782.npz"),
    "siglip_vitb16_256": _siglip("vit_base_patch16_siglip_256", "webli_en_b16_256_60500360.npz"),
    "siglip_vitb16_384": _siglip("vit_base_patch16_siglip_384", "webli_en_b16_384_68578854.npz"),
    "siglip_vitb16_512": _siglip("vit_base_patch16_siglip_512", "webli_en_b16_512_68580893.npz"),
    "siglip_vitb16_256_i18n": _siglip("vit_base_patch16_siglip_256", "webli_i18n_b16_256_66117334.npz"),
    "siglip_vitl16_256": _siglip("vit_large_patch16_siglip_256", "webli_en_l16_256_60552751.npz"),
    "siglip_vitl16_384": _siglip("vit_large_patch16_siglip_384", "webli_en_l16_384_63634585.npz"),
    "siglip_vitso400m14": _siglip("vit_so400m_patch14_siglip_224", "webli_en_so400m_224_57633886.npz"),
    "siglip_vitso400m14_378": _siglip("vit_so400m_patch14_siglip_378", "webli_en_so400m_384_58765454.npz"),
    "siglip_vitso400m16_256_i18n": _siglip("vit_so400m_patch16_siglip_256", "webli_i18n_so400m_16_256_78061115.npz"),
    # SigLIP 2 (Tschannen et al., 2025, arXiv:2502.14786), for images of one size.
    "siglip2_vitb32_256": _siglip2("base", 32, 256, "b"),
    "siglip2_vitb16": _siglip2("base", 16, 224, "b"),
    "siglip2_vitb16_256": _siglip2("base", 16, 256, "b"),
    "siglip2_vitb16_384": _siglip2("base", 16, 384, "b"),
    "siglip2_vitb16_512": _siglip2("base", 16, 512, "b"),
    "siglip2_vitl16_256": _siglip2("large", 16, 256, "l"),
    "siglip2_vitl16_384": _siglip2("large", 16, 384, "l"),
    "siglip2_vitl16_512": _siglip2("large", 16, 512, "l"),
    "siglip2_vitso400m14": _siglip2("so400m", 14, 224, "so400m"),
    "siglip2_vitso400m14_378": _siglip2("so400m", 14, 384, "so400m"),
    "siglip2_vitso400m16_256": _siglip2("so400m", 16, 256, "so400m"),
    "siglip2_vitso400m16_384": _siglip2("so400m", 16, 384, "so400m"),
    "siglip2_vitso400m16_512": _siglip2("so400m", 16, 512, "so400m"),
    "siglip2_vitg16_256": _siglip2("giantopt", 16, 256, "g-opt"),
    "siglip2_vitg16_384": _siglip2("giantopt", 16, 384, "g-opt"),
    # Perception Encoder (Bolya et al., 2025, arXiv:2504.13181): core pools by attention; spatial, aligned for dense
    # prediction, and lang, aligned with a language model, have neither pooling nor a last norm: their patches' average.
    "pe_core_vitti16_384": _perception("Core", "tiny_patch16_384", "T16-384"),
    "pe_core_vits16_384": _perception("Core", "small_patch16_384", "S16-384"),
    "pe_core_vitb16": _perception("Core", "base_patch16_224", "B16-224"),
    "pe_core_vitl14_336": _perception("Core", "large_patch14_336", "L14-336"),
    "pe_core_vitg14_448": _perception("Core", "gigantic_patch14_448", "G14-448"),
    "pe_spatial_vitti16_512": _perception("Spatial", "tiny_patch16_512", "T16-512", "avg"),
    "pe_spatial_vits16_512": _perception("Spatial", "small_patch16_512", "S16-512", "avg"),
    "pe_spatial_vitb16_512": _perception("Spatial", "base_patch16_512", "B16-512", "avg"),
    "pe_spatial_vitl14_448": _perception("Spatial", "large_patch14_448", "L14-448", "avg"),
    "pe_spatial_vitg14_448": _perception("Spatial", "gigantic_patch14_448", "G14-448", "avg"),
    "pe_lang_vitl14_448": _perception("Lang", "large_patch14_448", "L14-448", "avg"),
    "pe_lang_vitl14_448_tiling": _perception("Lang", "large_patch14_448", "L14-448-Tiling", "avg"),
    "pe_lang_vitg14_448": _perception("Lang", "gigantic_patch14_448", "G14-448", "avg"),
    "pe_lang_vitg14_448_tiling": _perception("Lang", "gigantic_patch14_448", "G14-448-Tiling", "avg"),
}
