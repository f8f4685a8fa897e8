"""The zoo: formats without reference numbers, other image sizes, and files that are missing or do not fit."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import make_vit
from paths import PARITY

from src.models.vit_backbones import convert, zoo
from src.models.vit_backbones.backbone import Backbone
from src.models.vit_backbones.build import build_backbone, create_vit, load_weights, resize_pos_embed
from src.models.vit_backbones.zoo import MODEL_ZOO, find_backbone, find_weights


def in_short(row: Backbone) -> Backbone:
    """A row with one block, where its blocks are all alike."""
    is_hierarchical = row.arch.startswith(("swin", "convnext"))
    return row if is_hierarchical else dataclasses.replace(row, arguments=row.arguments | {"depth": 1})


def test_every_row_builds():
    built = {(row.arch, row.pool): (name, row) for name, row in MODEL_ZOO.items()}
    for name, row in built.values():
        with torch.device("meta"):
            vit = create_vit(in_short(row), (224, 224) if name != "vit_micro_glyphs" else (32, 32))
        assert getattr(vit, "global_pool", "avg") in (row.pool, ""), name


def test_every_row_is_in_the_readme_with_its_file():
    readme = Path("pretrained/README.md").read_text()
    for name, row in MODEL_ZOO.items():
        (line,) = (line for line in readme.splitlines() if f"`{name}`" in line and line.startswith("|"))
        assert f"`{row.files[0]}`" in line


def test_architectures_are_the_published_sizes():
    sizes = {
        "sup_vitb16_imagenet21k": (768, 12, 12, 16),
        "sup_vith14_imagenet21k": (1280, 32, 16, 14),
        "clip_vitl14": (1024, 24, 16, 14),
        "dino_vits8": (384, 12, 6, 8),
        "dinov2_vitl14_reg": (1024, 24, 16, 14),
    }
    for name, (dim, depth, heads, patch) in sizes.items():
        with torch.device("meta"):
            vit = create_vit(MODEL_ZOO[name], (224, 224))
        assert (vit.embed_dim, len(vit.blocks), vit.blocks[0].attn.num_heads) == (dim, depth, heads)
        assert vit.patch_embed.patch_size == (patch, patch)
        assert vit.num_prefix_tokens == (5 if name.endswith("reg") else 1)


def test_vpt_dropout_sits_in_the_supervised_and_mae_models():
    with torch.device("meta"):
        sup, mae, moco = (create_vit(MODEL_ZOO[n], (224, 224)) for n in ("sup_vitb16_224", "mae_vitb16", "mocov3_vitb"))
    assert (sup.pos_drop.p, sup.blocks[0].mlp.drop1.p, sup.blocks[0].attn.proj_drop.p) == (0.1, 0.1, 0.0)
    assert [round(block.drop_path1.drop_prob, 3) for block in mae.blocks][::11] == [0.0, 0.1]
    assert isinstance(moco.blocks[11].drop_path1, torch.nn.Identity)


# --- formats


def save_dino(vit, path):
    torch.save(vit.state_dict(), path)


def save_dino_training(vit, path):
    teacher = {f"backbone.{k}": v for k, v in vit.state_dict().items()} | {"head.mlp.weight": torch.ones(1)}
    torch.save({"teacher": teacher, "student": {}, "epoch": 100}, path)


def save_dinov2(vit, path):
    state = dict(vit.state_dict()) | {"mask_token": torch.zeros(1, 32)}
    torch.save(state, path)


@pytest.mark.parametrize(
    ("save", "converter"),
    [(save_dino, convert.dino), (save_dino_training, convert.dino), (save_dinov2, convert.dinov2)],
)
def test_file_gives_the_features_of_its_model(tmp_path, save, converter, images):
    vit = make_vit(init_values=0.1 if save is save_dinov2 else None)
    save(vit, tmp_path / "file.pth")
    other = make_vit(init_values=0.1 if save is save_dinov2 else None)
    for param in other.parameters():
        param.data.normal_()
    load_weights(other, tmp_path / "file.pth", converter)
    assert torch.equal(other(images), vit(images))


def test_dinov2_registers_keep_the_class_tokens_position(tmp_path, images):
    """The published file has one position for the class token; timm's register models have none."""
    ours = make_vit(reg_tokens=4, no_embed_class=True)
    state = dict(ours.state_dict())
    cls_position = torch.randn(1, 1, 32)
    published = state | {
        "register_tokens": state["reg_token"],
        "cls_token": state["cls_token"] - cls_position,
        "pos_embed": torch.cat((cls_position, state["pos_embed"]), dim=1),
        "mask_token": torch.zeros(1, 32),
    }
    del published["reg_token"]
    torch.save(published, tmp_path / "file.pth")
    other = make_vit(reg_tokens=4, no_embed_class=True)
    other.cls_token.data.zero_()
    load_weights(other, tmp_path / "file.pth", convert.dinov2)
    torch.testing.assert_close(other(images), ours(images), atol=1e-5, rtol=0)


def test_timm_name_with_a_local_file(tmp_path):
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    torch.save(vit.state_dict(), tmp_path / "tiny.pth")
    ours = build_backbone("timm:vit_tiny_patch16_224", tmp_path, (64, 96), weight_path=str(tmp_path / "tiny.pth"))
    assert ours.patch_embed.grid_size == (4, 6)
    assert torch.equal(ours.blocks[3].attn.qkv.weight, vit.blocks[3].attn.qkv.weight)
    assert zoo.input_config("timm:vit_tiny_patch16_224")[0] == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_timm_name_without_file_or_network_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"MODEL\.WEIGHT_PATH"):
        build_backbone("timm:vit_tiny_patch16_224", tmp_path, (224, 224))


# --- image sizes


def test_bicubic_on_request_is_timms():
    pos = torch.randn(1, 1 + 16, 8)
    resized = resize_pos_embed(pos, (6, 3), 1, "bicubic")
    expected = timm.layers.resample_abs_pos_embed(pos, (6, 3), (4, 4))
    torch.testing.assert_close(resized, expected)
    assert not torch.allclose(resize_pos_embed(pos, (6, 3), 1, "bilinear"), expected)


def test_bilinear_aligns_the_corners_on_oblong_grids():
    pos = torch.randn(1, 2 + 25, 8)
    resized = resize_pos_embed(pos, (9, 4), 2, "bilinear")
    square = pos[:, 2:].unflatten(1, (5, 5)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(square, (9, 4), mode="bilinear", align_corners=True)
    torch.testing.assert_close(resized[:, 2:], expected.flatten(2).mT, atol=1e-5, rtol=0)
    assert torch.equal(resized[:, :2], pos[:, :2])


def test_image_size_that_patches_do_not_tile():
    with pytest.raises(ValueError, match=r"30x32 pixels.*patches of 4x4"):
        build_backbone("vit_micro_glyphs", Path("pretrained"), (30, 32))
    for row in MODEL_ZOO.values():
        if not row.arch.startswith(("swin", "convnext")):
            with torch.device("meta"):
                vit = create_vit(in_short(row), (zoo.patch_size(row) * 2,) * 2)
            assert vit.patch_embed.patch_size == (zoo.patch_size(row),) * 2


# --- files that are missing or do not fit


def test_missing_weights_say_what_from_where_and_whereto(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        find_weights("mocov3_vitb16", tmp_path)
    said = str(error.value)
    assert "https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/vit-b-300ep.pth.tar" in said
    assert str(tmp_path / "vit-b-300ep.pth.tar") in said


def test_vpts_own_file_name_works(tmp_path):
    (tmp_path / "imagenet21k_ViT-B_16.npz").touch()
    assert find_weights("sup_vitb16_imagenet21k", tmp_path).name == "imagenet21k_ViT-B_16.npz"


def test_keys_that_do_not_fit_are_all_listed(tmp_path):
    vit = make_vit()
    state = dict(vit.state_dict()) | {"extra.weight": torch.ones(1), "norm.bias": torch.ones(7)}
    del state["blocks.1.mlp.fc1.weight"]
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(ValueError, match="does not fit") as error:
        load_weights(vit, tmp_path / "file.pth", convert.dino)
    for part in ("missing blocks.1.mlp.fc1.weight", "unexpected extra.weight", "norm.bias is (7,), not (32,)"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "name", ["google_vit.npz", "mae_pretrain_vit.pth", "moco_pretrain.pth.tar", "clip_ViT-B-16.pt"]
)
def test_a_file_of_another_kind_is_refused(name):
    vit = make_vit(depth=2, num_heads=4)
    right = {"google_vit.npz": "google", "mae_pretrain_vit.pth": "mae", "moco_pretrain.pth.tar": "moco"}.get(
        name, "clip"
    )
    for kind in {"google", "mae", "moco", "clip", "dino"} - {right}:
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            load_weights(vit, PARITY / "zoo" / name, getattr(convert, kind))


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model": {}, "evil": Evil()}, tmp_path / "file.pth")
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        load_weights(make_vit(), tmp_path / "file.pth", convert.mae)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken"])
@pytest.mark.parametrize("kind", ["google", "mae", "clip"])
def test_broken_files_are_named(tmp_path, content, kind):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="file"):
        load_weights(make_vit(), tmp_path / "file", getattr(convert, kind))


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="clip_vitb16"):
        find_backbone("clip_vitb61")
    with pytest.raises(ValueError, match="no network of this name; did you mean resnet50"):
        find_backbone("timm:resnet5")


def test_demo_weights_are_small_and_ours():
    path = Path("pretrained/vit_micro_glyphs.npz")
    assert path.stat().st_size < 2e6
    vit = build_backbone("vit_micro_glyphs", path.parent, (32, 32))
    row = MODEL_ZOO["vit_micro_glyphs"]
    timms = timm.create_model(row.arch, num_classes=0, **row.arguments).eval()
    timms.load_pretrained(str(path))  # timm reads the same layout
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(vit(images), timms(images), atol=1e-5, rtol=0)
    assert len(np.load(path).files) == 8 + 16 * 4
