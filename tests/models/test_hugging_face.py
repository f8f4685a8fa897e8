"""Checkpoints of transformers: the features of its own forward, and folders that are broken, incomplete or lie."""

import json
from pathlib import Path

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from src.models.vit_backbones import tensors
from src.models.vit_backbones.build import build_backbone, read_fitting
from src.models.vit_backbones.hugging_face.kinds import KINDS, WITH_TEXT
from src.models.vit_backbones.hugging_face.place import cached, label
from src.models.vit_backbones.zoo import find_backbone, find_weights, hub_id, input_config, licence, norm_of_all
from src.tools.list import __main__ as listing

SIZES = dict(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=32, patch_size=8
)
WITHOUT_HIDDEN = {key: value for key, value in SIZES.items() if key != "intermediate_size"}
TEXT = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=9, bos_token_id=1,
    eos_token_id=2, pad_token_id=0,
)  # fmt: skip
DINOV3 = SIZES | dict(num_register_tokens=4, num_attention_heads=2)
BOTH = dict(vision_config=SIZES, text_config=TEXT)
MODELS = {
    "vit": ("ViTModel", "ViTConfig", SIZES),
    "vit_without_qkv_bias": ("ViTModel", "ViTConfig", SIZES | dict(qkv_bias=False, hidden_act="gelu_new")),
    "vit_classifier": ("ViTForImageClassification", "ViTConfig", SIZES | dict(patch_size=4, layer_norm_eps=1e-3)),
    "vit_masked": ("ViTForMaskedImageModeling", "ViTConfig", SIZES | dict(encoder_stride=8)),
    "deit": ("DeiTModel", "DeiTConfig", SIZES),
    "deit_two_heads": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", SIZES),
    "mae": ("ViTMAEModel", "ViTMAEConfig", SIZES | dict(mask_ratio=0.0)),
    "mae_decoder": ("ViTMAEForPreTraining", "ViTMAEConfig", SIZES | dict(mask_ratio=0.0)),
    "ijepa": ("IJepaModel", "IJepaConfig", SIZES),
    "ijepa_classifier": ("IJepaForImageClassification", "IJepaConfig", SIZES),
    "dinov2": ("Dinov2Model", "Dinov2Config", WITHOUT_HIDDEN | dict(layerscale_value=0.7, mlp_ratio=3)),
    "dinov2_gated": ("Dinov2ForImageClassification", "Dinov2Config", WITHOUT_HIDDEN | dict(use_swiglu_ffn=True)),
    "dinov2_registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", WITHOUT_HIDDEN),
    "clip_vision": ("CLIPVisionModel", "CLIPVisionConfig", SIZES),
    "clip_projection": ("CLIPVisionModelWithProjection", "CLIPVisionConfig", SIZES | dict(hidden_act="gelu")),
    "clip": ("CLIPModel", "CLIPConfig", BOTH),
    "metaclip_2": ("MetaClip2VisionModel", "MetaClip2VisionConfig", SIZES),
    "siglip_vision": ("SiglipVisionModel", "SiglipVisionConfig", SIZES),
    "siglip": ("SiglipModel", "SiglipConfig", BOTH),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViTConfig", DINOV3),
    "dinov3_gated": ("DINOv3ViTModel", "DINOv3ViTConfig", DINOV3 | dict(use_gated_mlp=True, hidden_act="silu")),
    "dinov3_all_biases": ("DINOv3ViTModel", "DINOv3ViTConfig", DINOV3 | dict(key_bias=True, rope_theta=50.0)),
    "dinov3_no_biases": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        DINOV3 | dict(query_bias=False, value_bias=False, num_register_tokens=0),
    ),
}
CLASS_TOKEN = ("vit", "deit")  # kinds whose pooler has weights of its own


def make(name: str, folder: Path) -> nn.Module:
    """A random model of transformers, saved in ``folder``."""
    model, config, values = MODELS[name]
    torch.manual_seed(0)
    network = getattr(transformers, model)(getattr(transformers, config)(**values)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # also biases and norms, which start at 0 and 1
    network.save_pretrained(folder)
    return network


def tower(network: nn.Module) -> nn.Module:
    """The image encoder of a model with a head or a second tower."""
    found = (getattr(network, name, None) for name in ("vit", "ijepa", "deit", "dinov2", "vision_model"))
    return next((part for part in found if part is not None), network)


def features(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What transformers makes of images, pooled."""
    encoder = tower(network)
    with torch.no_grad():
        output = encoder(images, output_hidden_states=True)
        if encoder.config.model_type == "vit_mae":  # its own forward shuffles the patches
            return encoder.layernorm(output.hidden_states[-1][:, 1:].mean(1))
        if encoder.config.model_type == "ijepa":
            return output.last_hidden_state.mean(1)
    return output.last_hidden_state[:, 0] if encoder.config.model_type in CLASS_TOKEN else output.pooler_output


def build(folder: Path, size: int = 32) -> nn.Module:
    """The same network in timm, whatever methods can do with it."""
    row = find_backbone(f"hf:{folder}")
    vit = timm.create_model(row.arch, num_classes=0, img_size=size, global_pool=row.pool, **row.arguments).eval()
    for norm in vit.modules():
        if isinstance(norm, nn.LayerNorm):
            norm.eps = row.epsilon
    path = find_weights(f"hf:{folder}", folder)
    vit.load_state_dict(read_fitting(vit, path, row.convert, row.resize, row.grid))
    return vit


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def vit_folder(tmp_path) -> Path:
    make("vit", tmp_path / "vit")
    return tmp_path / "vit"


def edit(path: Path, **values: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | values))


# --- features


@pytest.mark.parametrize("name", MODELS)
def test_features_are_those_of_transformers(name, tmp_path, images):
    theirs = features(make(name, tmp_path), images)
    with torch.no_grad():
        torch.testing.assert_close(build(tmp_path)(images), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["vit", "dinov2_gated", "dinov3_gated", "clip_vision", "siglip_vision", "deit"])
def test_names_of_transformers_5_are_read_too(name, tmp_path, images):
    """They are those of its modules; files keep older ones."""
    model = make(name, tmp_path)
    theirs = features(model, images)
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, tmp_path / "model.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(build(tmp_path)(images), theirs, atol=1e-5, rtol=1e-5)


def test_siglip_without_its_head_averages_its_patches(tmp_path, images):
    values = transformers.SiglipVisionConfig(**SIZES, vision_use_head=False)
    model = transformers.SiglipVisionModel(values).eval()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        averages = model(images).last_hidden_state.mean(1)
        torch.testing.assert_close(build(tmp_path)(images), averages, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["vit", "dinov2_registers", "siglip_vision"])
def test_positions_are_resized_for_other_images(name, tmp_path):
    make(name, tmp_path)
    vit = build_backbone(f"hf:{tmp_path}", tmp_path, (48, 32))
    assert vit(torch.randn(1, 3, 48, 32)).shape == (1, 24)


def test_positions_of_oblong_images(tmp_path):
    values = transformers.ViTConfig(**SIZES | dict(image_size=[32, 16]))
    model = transformers.ViTModel(values).eval()
    model.save_pretrained(tmp_path)
    images = torch.randn(2, 3, 32, 16)
    vit = build_backbone(f"hf:{tmp_path}", tmp_path, (32, 16))
    with torch.no_grad():
        torch.testing.assert_close(vit(images), model(images).last_hidden_state[:, 0], atol=1e-5, rtol=1e-5)
    turned = build_backbone(f"hf:{tmp_path}", tmp_path, (16, 32))  # as many patches, on another grid
    assert not torch.allclose(turned.pos_embed, vit.pos_embed)


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_those_of_transformers(kind):
    """Published files leave out what is as transformers has it: SigLIP's name the model_type alone."""
    theirs = transformers.CONFIG_MAPPING[kind]().to_dict()
    ours = {key: value for key, value in KINDS[kind].defaults.items() if key in theirs}
    assert ours == {key: theirs[key] for key in ours}
    assert {"hidden_size", "num_hidden_layers", "layer_norm_eps", "image_size", "patch_size"} <= ours.keys()


def test_text_and_image_in_one_configuration():
    for outer, inner in WITH_TEXT.items():
        assert transformers.CONFIG_MAPPING[outer]().vision_config.model_type == inner


# --- the folder


def test_weights_in_several_files(tmp_path, images):
    model = make("vit", tmp_path)
    theirs = features(model, images)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    with torch.no_grad():
        torch.testing.assert_close(build(tmp_path)(images), theirs, atol=1e-5, rtol=1e-5)
    next(tmp_path.glob("model-00001-*")).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"model-00001.* is missing, which model\.safetensors\.index\.json names"
    ):
        find_weights(f"hf:{tmp_path}", tmp_path)


def test_an_index_names_no_files_elsewhere(vit_folder):
    (vit_folder / "model.safetensors").rename(vit_folder.parent / "model.safetensors")
    index = {"weight_map": {"embeddings.cls_token": "../model.safetensors"}}
    (vit_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="must give each tensor a file in that folder"):
        find_weights(f"hf:{vit_folder}", vit_folder)


def test_pickled_weights_are_read_and_their_code_is_not_run(tmp_path, images):
    theirs = features(make("vit", tmp_path), images)
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    with torch.no_grad():
        torch.testing.assert_close(build(tmp_path)(images), theirs, atol=1e-5, rtol=1e-5)

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save(state | {"evil": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="Python objects"):
        build_backbone(f"hf:{tmp_path}", tmp_path, (32, 32))
    assert not (tmp_path / "ran").exists()


def test_missing_and_foreign_tensors_are_named(vit_folder):
    path = vit_folder / "model.safetensors"
    state = load_file(path)
    del state["encoder.layer.1.output.dense.bias"]
    save_file(state | {"encoder.layer.0.gate.weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="does not fit") as error:
        build_backbone(f"hf:{vit_folder}", vit_folder, (32, 32))
    assert "missing blocks.1.mlp.fc2.bias" in str(error.value)
    assert "unexpected encoder.layer.0.gate.weight" in str(error.value)


def test_half_precision_becomes_single(vit_folder):
    path = vit_folder / "model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path)
    assert {p.dtype for p in build(vit_folder).parameters()} == {torch.float32}


def test_quantised_weights_are_refused(vit_folder):
    path = vit_folder / "model.safetensors"
    save_file({name: (100 * tensor).to(torch.int8) for name, tensor in load_file(path).items()}, path)
    with pytest.raises(ValueError, match=r"not of floating point.*is torch\.int8"):
        build(vit_folder)


def test_a_name_of_the_hub_is_looked_up_in_the_cache_alone(vit_folder, tmp_path, monkeypatch, capsys):
    cached_folder = tmp_path / "hub" / "models--somebody--vit" / "snapshots" / ("0" * 40)
    cached_folder.parent.mkdir(parents=True)
    vit_folder.rename(cached_folder)
    (cached_folder.parents[1] / "refs").mkdir()
    (cached_folder.parents[1] / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (cached_folder / "README.md").write_text("---\ntags:\n- vision\nlicense: apache-2.0\n---\n# ViT\nlicense: mit\n")
    assert find_weights("hf:somebody/vit", tmp_path).parent == cached_folder
    assert find_backbone("hf:somebody/vit").url == "https://huggingface.co/somebody/vit"
    assert (hub_id("hf:somebody/vit"), licence("hf:somebody/vit")) == ("somebody/vit", "apache-2.0")
    assert cached() == ["hf:somebody/vit"]
    assert listing.main(["backbones", "hf:"]) == 0
    assert f"here: {cached_folder / 'model.safetensors'}" in capsys.readouterr().out
    with pytest.raises(ValueError, match="cache of the Hugging Face Hub does not have it: `hf download somebody/deit`"):
        find_backbone("hf:somebody/deit")


@pytest.mark.parametrize("place", ["", "/nowhere/at/all", "a/b/c", "../x", "~nobody-here/vit"])
def test_a_folder_that_is_not_there(place):
    with pytest.raises(ValueError, match=r"no folder|no such home folder"):
        find_backbone(f"hf:{place}")


def test_a_folder_without_config_or_weights(tmp_path):
    with pytest.raises(ValueError, match=r"holds no config\.json: save a model there"):
        find_backbone(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(FileNotFoundError, match=r"has no weights: model\.safetensors is missing"):
        find_weights(f"hf:{tmp_path}", tmp_path)


def test_other_weights_by_weight_path(vit_folder, tmp_path):
    other = make("vit_masked", tmp_path / "other")
    path = str(tmp_path / "other" / "model.safetensors")
    vit = build_backbone(f"hf:{vit_folder}", tmp_path, (32, 32), weight_path=path)
    assert torch.equal(vit.cls_token, tower(other).embeddings.cls_token)


def test_names_for_people_and_file_names():
    assert label("hf:/data/models/vit-b/") == "hf:vit-b"
    assert label("hf:~/vit-b") == label("hf:./vit-b") == "hf:vit-b"
    assert label("hf:google/vit-base-patch16-224") == "hf:google/vit-base-patch16-224"
    assert label("timm:vit_base_patch16_224") == "timm:vit_base_patch16_224"


# --- config.json and preprocessor_config.json are untrusted


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hidden_size": 10**12}, "hidden_size is 1000000000000, not a whole number from 1 to 65,536"),
        ({"hidden_size": 24.0}, r"hidden_size is 24\.0, not a whole number"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"num_hidden_layers": True}, "num_hidden_layers is true"),
        ({"num_attention_heads": 7}, "num_attention_heads is 7, by which hidden_size 24 is not divisible"),
        ({"layer_norm_eps": float("nan")}, "is broken"),
        ({"layer_norm_eps": 1e300}, "layer_norm_eps is 1e\\+300, not a number above 0, up to 1"),
        ({"hidden_act": "code"}, 'hidden_act is "code", not one of gelu'),
        ({"num_channels": 4}, "num_channels is 4, not 3: images here are RGB"),
        ({"patch_size": [8, 4]}, "which is not square"),
        ({"image_size": "large"}, 'image_size is "large"'),
        ({"model_type": "bert"}, "model_type is 'bert', which is not read here; known: clip"),
        ({"model_type": "siglip2"}, "its images have no fixed size"),
        ({"model_type": ["vit"]}, "which is not read here"),
        ({"model_type": "clip", "vision_config": [1]}, "is not a JSON object"),
        ({"head_dim": 16}, "head_dim is 16, not 8"),
        ({"qkv_bias": 1}, "qkv_bias is 1, neither true nor false"),
    ],
)
def test_values_that_cannot_be(vit_folder, values, said):
    edit(vit_folder / "config.json", **values)
    with pytest.raises(ValueError, match=said) as error:
        find_backbone(f"hf:{vit_folder}")
    assert "config.json" in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\x00", '{"model_type": 1e999}'])
def test_broken_configurations(vit_folder, text):
    (vit_folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        find_backbone(f"hf:{vit_folder}")


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_size": 60_000, "num_attention_heads": 2, "intermediate_size": 1_000_000},  # 10 TB, if it were made
        {"num_hidden_layers": 3},
        {"num_hidden_layers": 1},
        {"intermediate_size": 41},
        {"patch_size": 16},
        {"model_type": "deit"},
        {"model_type": "clip_vision_model"},
    ],
)
def test_sizes_that_the_tensors_do_not_have(vit_folder, values):
    edit(vit_folder / "config.json", **values)
    with pytest.raises(ValueError, match=r"does not fit VisionTransformer"):
        build_backbone(f"hf:{vit_folder}", vit_folder, (32, 32))


@pytest.mark.parametrize("said", [16, 64, [32, 64]])
@pytest.mark.parametrize("size", [32, 64])
def test_the_size_of_images_is_that_of_the_position_embeddings(vit_folder, said, size):
    """Whatever size is asked for, with another grid their rows would be taken for others."""
    edit(vit_folder / "config.json", image_size=said)
    with pytest.raises(
        ValueError, match=r"position embeddings of 16 patches, and config\.json .* one of them is wrong"
    ):
        build_backbone(f"hf:{vit_folder}", vit_folder, (size, size))


@pytest.mark.parametrize("lost", ["embeddings.cls_token", "embeddings.position_embeddings"])
def test_registers_without_class_token_or_positions(tmp_path, lost):
    make("dinov2_registers", tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({name: tensor for name, tensor in state.items() if name != lost}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"does not fit VisionTransformer: 1 missing"):
        build_backbone(f"hf:{tmp_path}", tmp_path, (32, 32))


def test_what_timms_eva_cannot_be(tmp_path):
    make("dinov3_gated", tmp_path)
    for values, said in (
        ({"mlp_bias": False}, "mlp_bias is false, not true"),
        ({"hidden_act": "gelu"}, 'hidden_act is "gelu", not "silu"'),
        ({"key_bias": True, "value_bias": False}, "biases of queries and values, of all three, or none"),
        ({"num_attention_heads": 4}, "divisible by 4"),
    ):
        config = (tmp_path / "config.json").read_text()
        edit(tmp_path / "config.json", **values)
        with pytest.raises(ValueError, match=said):
            find_backbone(f"hf:{tmp_path}")
        (tmp_path / "config.json").write_text(config)


def preprocessor(folder: Path, **values: object) -> None:
    transformers.ViTImageProcessor().save_pretrained(folder)
    edit(folder / "preprocessor_config.json", **values)


def test_pixels_are_the_preprocessors(vit_folder):
    name = f"hf:{vit_folder}"
    assert input_config(name) == (((0.5,) * 3, (0.5,) * 3), "bilinear")  # ViT's, for a folder without the file
    preprocessor(vit_folder, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], resample=3)
    assert input_config(name) == (((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), "bicubic")
    preprocessor(vit_folder, do_normalize=False)
    assert input_config(name)[0] == ((0.0,) * 3, (1.0,) * 3)
    preprocessor(vit_folder, do_rescale=False, image_mean=[127.5] * 3, image_std=[51.0] * 3)
    assert input_config(name)[0] == ((0.5,) * 3, (0.2,) * 3)
    assert not norm_of_all(name)


def test_pixels_that_are_saved_with_a_tokenizer(vit_folder):
    content = {"image_processor": {"image_mean": [0.1] * 3, "image_std": [0.2] * 3, "resample": 2}}
    (vit_folder / "processor_config.json").write_text(json.dumps(content))
    assert input_config(f"hf:{vit_folder}") == (((0.1,) * 3, (0.2,) * 3), "bilinear")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"image_mean": [0.5, float("nan"), 0.5]}, "is broken"),
        ({"image_mean": [0.5, 1e300, 0.5]}, "image_mean is not three numbers"),
        ({"image_mean": [0.5] * 4}, "image_mean is not three numbers"),
        ({"image_mean": None}, "image_mean is not three numbers"),
        ({"image_std": [0.5, 0.5, 0]}, "must be above 0"),
        ({"rescale_factor": -1}, "rescale_factor -1 is not a number above 0"),
        ({"rescale_factor": "1/255"}, "rescale_factor '1/255' is not a number above 0"),
    ],
)
def test_pixels_that_cannot_be(vit_folder, values, said):
    preprocessor(vit_folder, **values)
    with pytest.raises(ValueError, match=said):
        input_config(f"hf:{vit_folder}")


def test_tensors_of_a_second_tower_are_not_read(tmp_path, monkeypatch):
    make("clip", tmp_path)
    read = []
    original = tensors.read_content
    monkeypatch.setattr(tensors, "read_content", lambda *args: read.append(original(*args)) or read[-1])
    build(tmp_path)
    assert read[0].keys()
    assert not [name for name in read[0] if not name.startswith("vision_model.")]
