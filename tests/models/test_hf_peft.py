"""Hugging Face peft: every tuner it knows either works here or is refused by name, and its files go both ways."""

import json
import re
import shutil
import warnings
from pathlib import Path

import peft
import pytest
import torch
from conftest import make_cfg, make_model, make_vit, randomise
from fvcore.common.config import CfgNode
from programs import run_program
from runs import quick
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from src.api import load, save
from src.configs.config import ConfigError, get_cfg, load_cfg
from src.engine.checkpoint import load_tuned
from src.engine.run import run
from src.models.hf_peft import catalogue, injected
from src.models.merge import merged_state_dict
from src.models.methods import hf_peft
from src.models.vit_backbones.build import build_backbone, create_vit
from src.models.vit_backbones.zoo import MODEL_ZOO
from src.models.vit_models import TunedViT, parse

# Every tuner of peft 0.21: the arguments that 32 channels need, or a word of why it is refused.
EXPECTED: dict[str, dict | str] = {
    **{name: {} for name in ("ADAMSS", "BEFT", "BOFT", "DEFT", "DELORA", "FROD", "GLORA", "GRALORA", "HIRA", "HRA")},
    **{name: {} for name in ("LILY", "LOHA", "LOKR", "LORA", "OFT", "OSF", "PEANUT", "PSOFT", "PVERA", "RANDLORA")},
    **{name: {} for name in ("SUPERTUNING", "TINYLORA", "UNILORA", "VERA")},
    "C3A": {"block_size": 16},
    "FOURIERFT": {"n_frequency": 300},
    "IA3": {"feedforward_modules": ["mlp.fc2"]},
    "LN_TUNING": {"target_modules": ["norm1", "norm2"]},
    "MISS": {"r": 8},
    "ROAD": {"group_size": 16},
    "SHIRA": {"r": 4},
    "VBLORA": {"vector_length": 16, "num_vectors": 24},
    "WAVEFT": {"n_frequency": 300},
    **{name: "prompts" for name in ("CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")},
    "PROMPT_TUNING": "prompts",
    "ADALORA": "training loop",
    "ADAPTION_PROMPT": "Llama",
    "POLY": "task",
    "SHADOW": "decoder",
    "TRAINABLE_TOKENS": "embedding",
    "XLORA": "several adapters",
}
# Not the pre-trained model at the start: what they learn begins at random.
MOVE_AT_START = {"C3A", "FOURIERFT", "UNILORA", "VBLORA"}
# One number that is added to all channels of what a branch returns: the next LayerNorm takes it out again.
UNSEEN = re.compile(r"(attn\.proj|mlp\.fc2)\.glora_E\.")
# Not affine, or (LN_TUNING) a norm of its own.
DO_NOT_FOLD = {"LILY", "LN_TUNING"}
# A few of those that compile (all but FROD, SHIRA and WAVEFT do); LoRA, BOFT, VeRA and FourierFT are in the matrix.
COMPILE = {"IA3": {}, "LOHA": {}, "OFT": {}, "LORA": {"r": 4, "use_dora": True}}


def tuned(kind: str = "", vit: nn.Module | None = None, seed: int = 2, freqfit: str = "", **keys) -> TunedViT:
    """The tiny ViT with a tuner; ``keys`` are those of MODEL.PEFT."""
    keys = {"KWARGS": EXPECTED.get(kind, {}), **keys}
    cfg = make_cfg(MODEL__PEFT__TYPE=kind)
    cfg.MODEL.PEFT.update({key: CfgNode(value) if isinstance(value, dict) else value for key, value in keys.items()})
    vit = make_vit() if vit is None else vit
    cfg.MODEL.TRANSFER_TYPE = "peft"
    torch.manual_seed(seed)
    model = TunedViT(vit, parse("peft", freqfit), cfg.MODEL, num_classes=5).eval()
    model.cfg = cfg
    return model


def features(vit: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return vit.forward_head(vit.forward_features(images), pre_logits=True)


def by_peft(folder: Path) -> nn.Module:
    """The plain tiny ViT with an adapter that peft itself reads."""
    vit = make_vit()
    with warnings.catch_warnings(action="ignore"):
        return peft.PeftModel.from_pretrained(vit, str(folder)).eval().base_model.model


def saved_by_peft(folder: Path, config: peft.PeftConfig, vit: nn.Module | None = None, name: str = "default"):
    """An adapter that someone trained with peft alone on the plain model, at random; the model."""
    torch.manual_seed(5)
    with warnings.catch_warnings(action="ignore"):
        model = peft.get_peft_model(make_vit() if vit is None else vit, config, adapter_name=name).eval()
        for param in model.parameters():
            if param.requires_grad:
                param.data.add_(0.1 * torch.randn_like(param))
        model.save_pretrained(str(folder))
    return model.base_model.model


@pytest.fixture(params=sorted(name for name, what in EXPECTED.items() if isinstance(what, dict)))
def kind(request) -> str:
    return request.param


def test_the_table_names_every_tuner_of_this_peft():
    assert EXPECTED.keys() == catalogue.tuners().keys()


@pytest.mark.parametrize("name", sorted(name for name, what in EXPECTED.items() if isinstance(what, str)))
def test_tuners_that_cannot_work_are_refused_with_a_reason(name):
    cfg = hf_peft.Peft.defaults()
    cfg.TYPE = name
    (problem,) = hf_peft.Peft.problems(cfg)
    assert problem.startswith(f"TYPE: {name} does not work here")
    assert EXPECTED[name] in problem


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # FROD's sparse tensors
def test_tuner_learns_and_comes_back(kind, images, tmp_path):
    """Gradients, the file in a model of another seed, peft's format in peft and here, and folding."""
    model, plain = tuned(kind), make_model("linear")
    assert torch.allclose(model.features(images), plain.features(images), atol=1e-5) == (kind not in MOVE_AT_START)
    randomise(model)
    learned = model.features(images)
    assert not torch.allclose(learned, plain.features(images), atol=1e-3)

    model.train()(images).square().sum().backward()
    model.eval()
    params = dict(model.methods["peft"].model[0].named_parameters())  # by the modules they belong to
    assert set(params.values()) == set(model.methods.parameters())
    for name, param in params.items():
        assert (param.grad is not None) == param.requires_grad, name
        assert not param.requires_grad or UNSEEN.search(name) or param.grad.any(), name
    assert not any(param.grad is not None for param in model.vit.parameters())

    save(model, tmp_path / "tuned.safetensors")
    torch.manual_seed(99)
    again = load(tmp_path / "tuned.safetensors", make_vit())
    assert torch.equal(again.features(images), learned)
    method = again.methods["peft"]
    method.load_state_dict({name: tensor.clone() for name, tensor in method.state_dict().items()})
    assert not any("base_layer" in name for name in method.state_dict())

    model.methods["peft"].export(model.vit, tmp_path / "peft")
    assert {path.name for path in (tmp_path / "peft").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    torch.testing.assert_close(features(by_peft(tmp_path / "peft"), images), learned, atol=1e-5, rtol=0)
    back = tuned(LOAD=str(tmp_path / "peft"))
    torch.testing.assert_close(back.features(images), learned, atol=1e-5, rtol=0)

    if kind in DO_NOT_FOLD:
        with pytest.raises(ValueError, match="cannot be merged"):
            merged_state_dict(model)
    else:
        vit = make_vit()
        vit.load_state_dict(merged_state_dict(model))
        torch.testing.assert_close(features(vit, images), learned, atol=1e-5, rtol=1e-4)


def test_what_glora_adds_to_all_channels_of_a_branch_is_never_seen(images):
    """Its gradient there is rounding, in float64 ten digits below the others, and so may be zero; nowhere else."""
    model = tuned("GLORA").double()
    randomise(model)
    model(images.double()).square().sum().backward()
    grads = {name: p.grad.abs().max() for name, p in model.methods["peft"].model[0].named_parameters()}
    unseen = {name: grad for name, grad in grads.items() if UNSEEN.search(name)}
    assert len(unseen) == 2 * len(model.vit.blocks)
    assert max(unseen.values()) < 1e-10 * min(grad for name, grad in grads.items() if name not in unseen)


@pytest.mark.parametrize(("name", "first", "others"), [
    ("LILY", "blocks.0.attn.qkv.lily_B.weight", 2),  # one up matrix for the three blocks
    ("RANDLORA", "blocks.0.attn.qkv.randlora_A", 12),  # one for all twelve maps
])  # fmt: skip
def test_what_modules_share_is_saved_once_and_stays_shared(name, first, others, images, tmp_path):
    model = tuned(name)
    randomise(model)
    method = model.methods["peft"]
    kept = method.state_dict()
    assert first in kept
    assert list(method.other_names.values()).count(first) == others
    assert not method.other_names.keys() & kept.keys()
    assert len({tensor.data_ptr() for tensor in kept.values()}) == len(kept)
    save(model, tmp_path / "tuned.safetensors")
    again = load(tmp_path / "tuned.safetensors", make_vit())
    again.load_tuned_state_dict({name: tensor.clone() for name, tensor in model.tuned_state_dict().items()})
    assert again.num_trained() == model.num_trained()
    again.methods["peft"].state_dict()[first].zero_()
    same = again.methods["peft"]._learned()
    assert not any(same[other].any() for other, owner in method.other_names.items() if owner == first)


@pytest.mark.parametrize("forgotten", ["lora_B", "blocks.1.attn.qkv.lora_B"])
def test_what_a_tuner_would_not_save_is_found_before_training(forgotten, monkeypatch):
    """peft's own list of what belongs to an adapter, made wrong: as in a tuner that forgets a part of itself."""
    whole = injected.Injected._learned

    def forgetful(self):
        return {name: tensor for name, tensor in whole(self).items() if forgotten not in name}

    monkeypatch.setattr(injected.Injected, "_learned", forgetful)
    with pytest.raises(ValueError, match=r"LORA does not save all that it learns.*lora_B"):
        tuned("LORA")


def test_parts_of_one_tensor_cannot_be_saved_and_are_refused_at_once():
    whole = torch.arange(6.0)
    with pytest.raises(ValueError, match="b and a are parts of one tensor"):
        injected.other_names({"a": whole[:4], "b": whole[4:]}, "NEW")
    assert injected.other_names({"a": whole, "b": whole, "c": whole.clone(), "d": whole[:0]}, "NEW") == {"b": "a"}


@pytest.mark.parametrize("name", COMPILE)
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")  # LoHa's, when dynamo reads it
def test_tuner_compiles_into_one_graph(name, images):
    model = tuned(name, make_vit(depth=1), KWARGS=EXPECTED[name] | COMPILE[name])
    randomise(model)
    torch._dynamo.reset()
    one_graph = not torch.__version__.startswith("2.6.")  # which breaks off at peft's layers, and goes on behind them
    compiled = torch.compile(model, fullgraph=one_graph, backend="aot_eager")
    torch.testing.assert_close(compiled(images), model(images), atol=1e-5, rtol=1e-5)


def test_dora_folds_and_composes_with_the_filter(images):
    model = tuned("LORA", KWARGS={"r": 4, "use_dora": True}, freqfit="freqfit")
    assert any("lora_magnitude_vector" in name for name in model.methods["peft"].state_dict())
    randomise(model)
    assert model(images).isfinite().all()
    alone = tuned("LORA", KWARGS={"r": 4, "use_dora": True})
    randomise(alone)
    vit = make_vit()
    vit.load_state_dict(merged_state_dict(alone))
    torch.testing.assert_close(features(vit, images), alone.features(images), atol=1e-5, rtol=0)


def test_taps_of_other_methods_see_what_peft_computes(images):
    """SSF scales what peft makes of x; our LoRA is added beside; VQT's queries pass it."""
    model = make_model("peft+lora+ssf", MODEL__LORA__TARGETS=["attn.proj"])
    randomise(model)
    taps = {name: method for name, method in model.methods.items()}
    site = model.vit.blocks[1].attn.proj
    x = torch.randn(2, 17, 32)
    tap = {name: next(taps[name].taps[i] for s, _, i in taps[name].wires if s == "blocks.1.attn.proj") for name in taps}
    torch.testing.assert_close(site(x), tap["ssf"](tap["peft"](x)) + tap["lora"](x))
    model = make_model("vqt+peft")
    before = model.features(images)[:, 32:]
    randomise(model, 0.5)
    assert not torch.allclose(model.features(images)[:, 32:], before, atol=1e-2)


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        (["TYPE", "lorra"], "did you mean LORA?"),
        (["TYPE", "LoraConfig", "KWARGS", "{'rank': 8, 'use_dorra': True}"], "did you mean use_dora"),
        (["TYPE", "LORA", "KWARGS", "{'init_lora_weights': 'pissa_niter_4'}"], "changes the frozen weights"),
        (["TYPE", "LORA", "KWARGS", "{'modules_to_save': ['head']}"], "other methods train whole modules"),
        (["TYPE", "IA3", "KWARGS", "{'feedforward_modules': ['fc3']}"], "subset"),
        (["TARGETS", "attn.qkv,attn.q"], "attn.qkv and a part of it"),
        (["TARGETS", "[]"], "it must not be empty"),
        (["TYPE", "VBLORA", "KWARGS", "{'save_only_topk_weights': True}"], "needed to go on with an interrupted run"),
        (["LOAD", "somewhere", "KWARGS.r", "8"], "leave KWARGS empty"),
    ],
)
def test_mistakes_are_found_before_data_is_read(pairs, says):
    keys = [text if i % 2 else f"MODEL.PEFT.{text}" for i, text in enumerate(pairs)]
    with pytest.raises(ConfigError) as error:
        load_cfg("", ["DATA.NAME", "digits", "DATA.FEATURE", "vit_micro_glyphs", "MODEL.TRANSFER_TYPE", "peft", *keys])
    assert says in str(error.value)


@pytest.mark.parametrize("name", ["FROD", "SHIRA", "WAVEFT"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tuners_that_break_the_graph_still_do(name, images):
    """When this fails, a newer peft or torch compiles them: say so in hf_peft.py."""
    torch._dynamo.reset()
    compiled = torch.compile(tuned(name, make_vit(depth=1)), fullgraph=True, backend="eager")
    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiled(images)


@pytest.mark.parametrize("name", ["peft", "boft", "vera"])
def test_swin_is_tuned_and_folds(name, images):
    def swin() -> SwinTransformer:
        torch.manual_seed(1)
        small = dict(img_size=32, patch_size=2, embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4)
        return SwinTransformer(**small, num_classes=0).eval()

    model = make_model(name, vit=swin())
    randomise(model)
    vit = swin()
    vit.reset_classifier(0)
    vit.load_state_dict(merged_state_dict(model))
    torch.testing.assert_close(features(vit, images), model.features(images), atol=1e-5, rtol=1e-4)


def test_dtype_follows_the_vit(images):
    """Also of what peft shares among its layers: VeRA's matrices."""
    model = make_model("vera")
    randomise(model)
    features = model.features(images)
    torch.testing.assert_close(model.double().features(images.double()).float(), features, atol=1e-5, rtol=1e-4)


def test_what_does_not_fit_the_backbone_says_why():
    with pytest.raises(ValueError, match=r"'fft' does not fit.*MODEL\.FFT\.FREQ is 3000, more than the 1,024"):
        make_model("fft")
    with pytest.raises(ValueError, match=r"blocks\.0 has no attn\.qvk"):
        tuned("LORA", TARGETS=["attn.proj", "attn.qvk"])
    with pytest.raises(ValueError, match="adds nothing"):
        parse("end2end+vera")


# --- FreqFiT's three

COUNTS = {  # with the biases of all six linear maps, 82,944; BOFT with the one factor that peft computes
    "boft": 12 * (4 * (3_072 + 768) + (3_072 + 3_072) + (12_288 + 768)) + 82_944,
    "vera": 12 * (6 * 256 + 5 * 768 + 3_072) + 82_944,
    "fft": 12 * 6 * 3_000 + 82_944,
}


@pytest.mark.parametrize(("name", "count"), [("boft", 497_664), ("vera", 184_320), ("fft", 298_944)])
def test_parameter_counts_are_freqfits(name, count, monkeypatch):
    # Only to count: the permutations, which peft writes down entry by entry, take seconds.
    monkeypatch.setattr("peft.tuners.boft.layer.BOFTLayer.perm2mat", lambda self, indices: torch.zeros(1).expand(1, 1))
    with torch.device("meta"):
        vit = create_vit(MODEL_ZOO["sup_vitb16_imagenet21k"], (224, 224))
        trained = TunedViT(vit, parse(name), get_cfg().MODEL, num_classes=100).num_trained()
    assert trained[name] + trained["vit"] == count == COUNTS[name]
    assert trained["vit"] == 82_944


def test_thirds_are_maps_of_their_own_and_are_not_written_for_peft(images, tmp_path, caplog):
    model = make_model("vera", MODEL__VERA__TARGETS=["attn.q", "attn.v"], MODEL__VERA__R=4)
    randomise(model)
    linear, x = model.vit.blocks[1].attn.qkv, torch.randn(2, 5, 32)
    moved = (linear(x) - nn.functional.linear(x, linear.weight, linear.bias)).abs().amax((0, 1)).view(3, 32).amax(1)
    assert [bool(third > 1e-4) for third in moved] == [True, False, True]
    with caplog.at_level("INFO"):
        model.methods["vera"].export(model.vit, tmp_path / "vera")
    assert "no " + str(tmp_path / "vera") in caplog.text
    assert not any(tmp_path.iterdir())


def test_biases_train_with_the_vit_and_travel_in_peft_files(images, tmp_path):
    targets = ["attn.qkv", "mlp.fc1"]
    model = make_model("boft", MODEL__BOFT__TARGETS=targets)
    assert model.num_trained()["vit"] == 3 * (96 + 128)
    randomise(model)
    model.methods["boft"].export(model.vit, tmp_path / "boft")
    learned = model.features(images)
    torch.testing.assert_close(features(by_peft(tmp_path / "boft"), images), learned, atol=1e-5, rtol=0)
    back = tuned(LOAD=str(tmp_path / "boft"))
    torch.testing.assert_close(back.features(images), learned, atol=1e-5, rtol=0)
    assert back.num_trained()["vit"] == 3 * (96 + 128)


def test_boft_does_not_depend_on_a_compiler(caplog):
    with caplog.at_level("WARNING"):
        model = make_model("boft")
    assert "1 butterfly factor" in caplog.text
    assert all(tensor.shape[0] == 1 for name, tensor in model.methods["boft"].state_dict().items() if "boft_R" in name)


# --- adapters of others

LORA_BY_OTHERS = {
    "endings": dict(target_modules=["qkv", "fc1"], r=4),
    "regex": dict(target_modules=r"blocks\.[02]\..*(proj|fc2)", r=4),
    "every linear map": dict(target_modules="all-linear", r=2),
    "patterns": dict(
        target_modules=["qkv"], rank_pattern={"blocks.1.attn.qkv": 3}, exclude_modules=["blocks.2.attn.qkv"]
    ),
    "biases": dict(target_modules=["attn.qkv"], bias="lora_only"),
    "all biases": dict(target_modules=["attn.qkv"], bias="all"),
    "convolution": dict(target_modules=["patch_embed.proj"], r=4),
    "rs": dict(target_modules=["attn.qkv"], use_rslora=True, lora_alpha=16),
}


@pytest.mark.parametrize("name", LORA_BY_OTHERS)
def test_adapters_of_plain_peft_load(name, images, tmp_path):
    theirs = saved_by_peft(tmp_path, peft.LoraConfig(**LORA_BY_OTHERS[name]))
    model = tuned("lora", LOAD=str(tmp_path), KWARGS={})
    torch.testing.assert_close(model.features(images), features(theirs, images), atol=1e-5, rtol=0)


def test_the_head_of_an_adapter_is_left_out_with_a_note(images, tmp_path, caplog):
    config = peft.LoraConfig(target_modules=["qkv"], modules_to_save=["head"])
    theirs = saved_by_peft(tmp_path, config, make_vit(num_classes=7), name="mine")
    with pytest.raises(FileNotFoundError, match=r"adapter_config.json is missing; there is one in .*mine"):
        tuned(LOAD=str(tmp_path))
    model = tuned(LOAD=str(tmp_path / "mine"), vit=make_vit(num_classes=7))
    torch.testing.assert_close(model.features(images), features(theirs, images), atol=1e-5, rtol=0)
    assert "left out head.bias, head.weight" in caplog.text


def test_adapters_of_a_wrapped_model_and_broken_ones(images, tmp_path):
    from safetensors.torch import load_file, save_file

    theirs = saved_by_peft(tmp_path, peft.LoraConfig(target_modules=["qkv"], r=4))
    file = tmp_path / "adapter_model.safetensors"
    state = load_file(file)
    save_file({name.replace("model.blocks", "model.encoder.blocks"): tensor for name, tensor in state.items()}, file)
    torch.testing.assert_close(tuned(LOAD=str(tmp_path)).features(images), features(theirs, images))
    save_file({name: tensor for name, tensor in state.items() if "blocks.1" not in name}, file)
    with pytest.raises(ValueError, match=r"blocks\.1\.attn\.qkv\.lora_A\.weight is missing"):
        tuned(LOAD=str(tmp_path))
    deeper = {
        name.replace("blocks.2", "blocks.3"): tensor.clone() for name, tensor in state.items() if "blocks.2" in name
    }
    save_file(state | deeper, file)
    with pytest.raises(ValueError, match=r"blocks\.3\.attn\.qkv\.lora_A\.weight is unexpected"):
        tuned(LOAD=str(tmp_path))
    save_file({name: tensor[:, :2].contiguous() for name, tensor in state.items()}, file)
    with pytest.raises(ValueError, match=r"is \(4, 2\), not \(4, 32\)"):
        tuned(LOAD=str(tmp_path))
    with pytest.raises(ValueError, match=r"TYPE is 'loha', but MODEL.PEFT.LOAD .* is LORA"):
        tuned("loha", LOAD=str(tmp_path))
    content = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**content, "init_lora_weights": "pissa"}))
    with pytest.raises(ValueError, match="changes the frozen weights"):
        tuned(LOAD=str(tmp_path))
    file.unlink()
    (tmp_path / "adapter_config.json").write_text(json.dumps(content))
    with pytest.raises(FileNotFoundError, match=r"adapter_model\.safetensors is missing"):
        tuned(LOAD=str(tmp_path))


def test_a_run_needs_no_adapter_to_be_loaded_again_and_leaves_one(tmp_path, images):
    given = tmp_path / "given"
    config = peft.LoraConfig(target_modules=["attn.qkv", "fc1"], r=3, bias="lora_only")
    saved_by_peft(given, config, build_backbone("vit_micro_glyphs", "pretrained", (32, 32)))
    cfg, folder = quick(
        tmp_path, "MODEL.TRANSFER_TYPE", "peft", "MODEL.PEFT.LOAD", str(given), "SOLVER.TOTAL_EPOCH", "1",
        "SOLVER.WARMUP_EPOCH", "0", "DATA.CROPSIZE", "32",
    )  # fmt: skip
    run(cfg, folder)
    shutil.rmtree(given)
    model = load_tuned(folder.path).model
    vit = build_backbone("vit_micro_glyphs", "pretrained", (32, 32))
    with warnings.catch_warnings(action="ignore"):
        theirs = peft.PeftModel.from_pretrained(vit, str(folder.path / "peft")).eval().base_model.model
    torch.testing.assert_close(model.features(images), features(theirs, images), atol=1e-5, rtol=0)
    assert sorted(path.name for path in (folder.path / "peft").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_peft_is_imported_only_by_those_who_need_it():
    code = (
        "import sys; from src.configs.config import load_cfg; "
        "load_cfg('', ['DATA.NAME', 'digits', 'DATA.FEATURE', 'vit_micro_glyphs', 'MODEL.TRANSFER_TYPE', 'lora']); "
        "assert not {'peft', 'transformers'} & set(sys.modules)"
    )
    assert run_program("-c", code).returncode == 0
