"""timm's networks of every kind: how published files are translated, which images they take, and their weights."""

import inspect
import re
import sys
from functools import partial

import pytest
import timm
import torch

from src.models.vit_backbones import timm_weights
from src.models.vit_backbones.build import architecture, build_backbone, timm_arguments
from src.models.vit_backbones.zoo import find_backbone


class Captured(Exception):
    """What a network's name in timm hands to timm's builder."""

    def __init__(self, translate):
        self.translate = translate


def parts(translate) -> tuple:
    """A translation's function and arguments that are not its own defaults; None where names stay."""
    arguments = translate.keywords if isinstance(translate, partial) else {}
    function = translate.func if isinstance(translate, partial) else translate
    signature = inspect.signature(function).parameters
    return function, {key: value for key, value in arguments.items() if value != signature[key].default}


def test_files_are_translated_as_timm_translates_them(monkeypatch):
    """For each of timm's names, and without building its network."""

    def build_model_with_cfg(*_, pretrained_filter_fn=None, **__):
        raise Captured(pretrained_filter_fn)

    for module in list(sys.modules.values()):
        if module.__name__.startswith("timm.models.") and hasattr(module, "build_model_with_cfg"):
            monkeypatch.setattr(module, "build_model_with_cfg", build_model_with_cfg)
    seen = 0
    for name in timm.list_models():
        with pytest.raises(Captured) as captured:
            timm.models.model_entrypoint(name)(pretrained=False)
        theirs, ours = captured.value.translate, timm_weights.filter_of(name)
        if theirs is None:
            assert ours({"a": 1}, None) == {"a": 1}, name
        elif len(inspect.signature(getattr(theirs, "func", theirs)).parameters) > 1:
            assert parts(ours) == parts(theirs), name
            seen += 1
    assert seen > 600


# Networks of other families, or of none, that are quick to make: with the size of their images, and another.
NETWORKS = {
    "test_vit": ((160, 160), (96, 128)),
    "deit_tiny_distilled_patch16_224": ((224, 224), (96, 128)),
    "test_resnet": ((160, 160), (100, 90)),
    "test_efficientnet": ((160, 160), (100, 90)),
    "test_convnext": ((160, 160), (100, 90)),
    "test_maxvit": ((160, 160), (160, 320)),
    "test_vit_relpos": ((160, 160), (160, 160)),
    "xcit_nano_12_p16_224": ((224, 224), (96, 128)),
    "fastvit_t8": ((256, 256), (96, 128)),
    "levit_128s": ((224, 224), (224, 224)),
    "swinv2_cr_tiny_224": ((224, 224), (224, 224)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_gives_the_features_of_its_network(tmp_path, name):
    """With its classifier, in what training code wraps around it."""
    own, other = NETWORKS[name]
    network = timm.create_model(name, num_classes=7).eval()
    state = {f"module.{key}": tensor for key, tensor in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, path := tmp_path / "file.pth")
    vit = build_backbone(f"timm:{name}", tmp_path, own, weight_path=str(path))
    images = torch.randn(1, 3, *own)
    network.reset_classifier(0)
    with torch.no_grad():
        torch.testing.assert_close(vit(images), network(images))
        resized = build_backbone(f"timm:{name}", tmp_path, other, weight_path=str(path))
        assert resized(torch.randn(1, 3, *other)).shape == (1, vit.head_hidden_size)
    lost = sorted(key for key in vit.state_dict() if key.endswith("weight"))[3]
    torch.save({key: tensor for key, tensor in network.state_dict().items() if key != lost}, path)
    with pytest.raises(ValueError, match=rf"1 missing, 0 unexpected.*missing {lost}"):
        build_backbone(f"timm:{name}", tmp_path, own, weight_path=str(path))


@pytest.mark.parametrize("name", NETWORKS)
def test_timm_builds_it_from_its_arguments(name):
    with torch.device("meta"):
        vit = architecture(f"timm:{name}", NETWORKS[name][1])
        kind, arguments = timm_arguments(f"timm:{name}", vit, NETWORKS[name][1], len(getattr(vit, "blocks", ())))
        built = timm.create_model(kind, num_classes=0, **arguments)
    wanted = {key: tensor.shape for key, tensor in vit.state_dict().items()}
    assert {key: tensor.shape for key, tensor in built.state_dict().items()} == wanted


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("test_vit", (100, 100), "cannot be cut into patches of 16x16"),
        ("test_maxvit", (100, 100), r"does not take images of 100x100 pixels \(.*\): choose DATA\.CROPSIZE.*160x160"),
        ("mvitv2_tiny", (96, 128), "mvitv2_tiny does not take images of 96x128 pixels: choose"),
        ("convit_tiny", (96, 128), "does not take images of 96x128"),
        ("nest_tiny", (96, 128), "Model only handles square inputs"),
        ("gemma4_vit_167m_enc", (224, 224), r"does not take images of 224x224 pixels \(.*divisible"),
    ],
)
def test_images_that_a_network_does_not_take(name, size, said):
    """It is found out without weights and without arithmetic."""
    with torch.device("meta"), pytest.raises(ValueError, match=said):
        architecture(f"timm:{name}", size)


@pytest.mark.parametrize("name", ["cait_xxs24_224", "hiera_tiny_224"])
def test_positions_that_timm_does_not_resize(tmp_path, name):
    network = timm.create_model(name, num_classes=0)
    torch.save(network.state_dict(), path := tmp_path / "file.pth")
    with pytest.raises(ValueError, match=rf"timm does not resize pos_embed of {name} for images of 192x256.*224x224"):
        build_backbone(f"timm:{name}", tmp_path, (192, 256), weight_path=str(path))


def test_deit_3_as_meta_publishes_it():
    """Its layer scale is a parameter of the block there."""
    network = timm.create_model("deit3_small_patch16_224", depth=2, num_classes=0)
    state = {re.sub(r"ls(\d)\.gamma", r"gamma_\1", key): tensor for key, tensor in network.state_dict().items()}
    translated = timm_weights.filter_of("deit3_small_patch16_224")(state, network)
    assert translated.keys() == network.state_dict().keys()


def test_weights_in_the_cache_that_do_not_fit_are_not_called_missing(tmp_path, monkeypatch):
    state = timm.create_model("test_vit", num_classes=0).state_dict() | {"norm.weight": torch.ones(7)}
    monkeypatch.setattr(timm_weights, "hub_file", lambda _: tmp_path)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(state))
    with pytest.raises(ValueError, match=r"weights of 'test_vit\.r160_in1k' do not fit the network: .*norm\.weight"):
        build_backbone("timm:test_vit.r160_in1k", tmp_path, (160, 160))


def test_weights_that_timm_does_not_have():
    with pytest.raises(ValueError, match=r"has no weights 'in1k' of test_vit; known: r160_in1k"):
        find_backbone("timm:test_vit.in1k")


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path, monkeypatch):
    """Its own client would ask again for most of a minute."""
    asked = []

    def no_answer(url: str, timeout: float) -> None:
        asked.append(url)
        raise LookupError("no address for huggingface.co")

    monkeypatch.setattr(timm_weights, "get_hf_file_metadata", no_answer)
    monkeypatch.setattr(timm_weights, "hub_file", lambda _: None)
    said = (
        r"could not get the weights of 'test_vit' \(no address .*\)\. `hf download timm/test_vit.* MODEL\.WEIGHT_PATH"
    )
    with pytest.raises(FileNotFoundError, match=said):
        build_backbone("timm:test_vit", tmp_path, (160, 160))
    assert len(asked) == 1
