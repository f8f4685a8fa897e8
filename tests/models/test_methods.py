"""What every method must do, for every name in METHODS and a dozen mixes, on a tiny random ViT."""

import copy
import json
import math
import re
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
from conftest import DEVICE, make_cfg, make_model, make_vit, randomise
from copies import Copies
from methods import ALONE, MIXES, build, each, every_method
from paths import PARITY, ROOT
from timm.models.convnext import ConvNeXt
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock

from src.configs.config import ConfigError, get_cfg, model_cfg
from src.configs.keys import declared
from src.configs.methods import config_name
from src.models.merge import merged_state_dict
from src.models.method import Method, Site, wires, wiring
from src.models.methods.convpass import ConvBypass
from src.models.methods.freqfit import MATRIX_LIMIT, Fourier, SpectralFilter
from src.models.methods.lora import LowRank
from src.models.methods.repadapter import GroupedBottleneck
from src.models.methods.rlrr import Rescale
from src.models.methods.side import averages
from src.models.vit_backbones.build import create_vit, set_dropout
from src.models.vit_backbones.zoo import MODEL_ZOO
from src.models.vit_models import METHODS, TunedViT, parse
from src.models.wise import between


@every_method
def test_starts_at_the_pretrained_output_or_is_known_not_to(names, freqfit, images):
    model = build(names, freqfit)
    plain = make_model("linear")
    features = model.features(images)[:, : plain.vit.num_features]  # vqt's answers come behind the pooled features
    same = torch.allclose(features, plain.features(images), atol=1e-6)
    moves = not all(METHODS[name].starts_pretrained for name in model.methods) or "reinit" in names
    assert same != moves


@every_method
def test_exactly_what_trains_gets_a_gradient(names, freqfit, images):
    model = build(names, freqfit)
    randomise(model)
    model.head(model.features(images)).square().sum().backward()
    for name, param in model.named_parameters():
        assert (param.grad is not None) == param.requires_grad, name
    assert any(p.requires_grad for p in model.head.parameters())


@every_method
def test_a_step_changes_nothing_frozen_and_no_key(names, freqfit, images):
    model = build(names, freqfit)
    keys = set(make_vit().state_dict())
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    model(images).square().sum().backward()
    optimizer.step()
    assert set(model.vit.state_dict()) == keys
    for name, param in model.named_parameters():
        if not param.requires_grad:
            assert torch.equal(param, before[name]), name


@every_method
def test_what_was_learned_goes_into_a_new_model(names, freqfit, images):
    model = build(names, freqfit)
    randomise(model)
    again = build(names, freqfit)
    again.load_tuned_state_dict({k: v.clone() for k, v in model.tuned_state_dict().items()})
    assert torch.equal(model(images), again(images))
    if "end2end" not in model.methods:
        assert len(model.tuned_state_dict()) < len(model.state_dict())


@every_method
def test_a_deep_copy_is_independent(names, freqfit, images):
    model = build(names, freqfit)
    before = model(images)
    other = copy.deepcopy(model)
    randomise(other)
    assert torch.equal(model(images), before)
    assert not torch.allclose(other(images), before)


@each(ALONE + MIXES[2::3])  # slow: a second each
def test_compiles_into_one_graph(names, freqfit, images):
    model = build(names, freqfit)
    randomise(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images), model(images), atol=1e-5, rtol=1e-5)


def covering() -> list[tuple[str, str]]:
    """Few mixes and methods that together have every method: the one first that has most of those that are left."""
    left, chosen = set(METHODS), []
    while left:
        chosen.append(max(MIXES + ALONE, key=lambda pair: (len(left & {*parse(*pair)}), -len(parse(*pair)))))
        left -= {*parse(*chosen[-1])}
    return chosen


@each(covering())
def test_autograd_goes_through_the_graph(names, freqfit, images):
    """As inductor gets it: one graph forwards and one backwards, of functions of PyTorch's own that change nothing."""
    found = []
    model = build(names, freqfit, vit=make_vit(depth=1)).double()  # or rounding moves a ReLU's kink in side's AlexNet
    randomise(model)
    torch._dynamo.reset()
    for network in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        logits = network(images.double())
        trained = [param for param in model.parameters() if param.requires_grad]
        found.append([logits, *torch.autograd.grad(logits.square().sum(), trained)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@every_method
def test_folds_into_a_plain_vit_or_says_why_not(names, freqfit, images):
    model = build(names, freqfit)
    randomise(model)
    refused = ""
    try:
        state = merged_state_dict(model)
    except ValueError as error:
        refused = str(error)
    if refused:
        assert "cannot be merged" in refused
        assert not all(METHODS[name].folds for name in model.methods)
        return
    assert all(METHODS[name].folds for name in model.methods)
    plain = make_vit(depth=len({name.split(".")[1] for name in state if name.startswith("blocks.")}))
    plain.load_state_dict(state)
    merged = model.head(plain.forward_head(plain.forward_features(images), pre_logits=True))
    torch.testing.assert_close(merged, model(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("arguments", [{}, {"no_embed_class": True}, {"reg_tokens": 2}])
@pytest.mark.parametrize("names", ["ssf", "rlrr+lora"])
def test_a_patch_convolution_without_bias_folds_into_the_positions(names, arguments, images):
    model = make_model(names, vit=make_vit(pre_norm=True, **arguments))  # as CLIP has it
    assert model.vit.patch_embed.proj.bias is None
    randomise(model)
    plain = make_vit(pre_norm=True, **arguments)
    plain.load_state_dict(merged_state_dict(model))
    merged = plain.forward_head(plain.forward_features(images), pre_logits=True)
    torch.testing.assert_close(merged, model.features(images), atol=1e-5, rtol=1e-5)


def test_a_shift_makes_the_bias_that_a_map_does_not_have(images):
    model = make_model("ssf", vit=make_vit(qkv_bias=False))
    randomise(model)
    state = merged_state_dict(model)
    assert "blocks.0.attn.qkv.bias" in state.keys() - make_vit(qkv_bias=False).state_dict().keys()
    plain = make_vit()
    plain.load_state_dict(state)
    features = plain.forward_head(plain.forward_features(images), pre_logits=True)
    torch.testing.assert_close(features, model.features(images), atol=1e-5, rtol=1e-5)


def test_prompts_are_scaled_by_the_features_they_make(images):
    model = make_model("prompt+lora", "freqfit", vit=make_vit(global_pool="avg"))
    randomise(model)
    tuned, plain = model.features(images), make_model("linear", vit=make_vit(global_pool="avg")).features(images)
    with between(model, {}, 0.3) as network:
        torch.testing.assert_close(network.features(images), 0.7 * plain + 0.3 * tuned, atol=1e-5, rtol=1e-5)


@every_method
def test_lies_between_the_pretrained_and_the_tuned_model(names, freqfit, images):
    model = build(names, freqfit)
    start = {f"vit.{name}": param.clone() for name, param in make_vit().named_parameters()}
    randomise(model)
    tuned = model.features(images)
    start = {name: value for name, value in start.items() if model.get_parameter(name).requires_grad}
    plain = make_model("linear").features(images)
    with between(model, start, 0.0) as network:
        own, added = network.features(images).split([plain.shape[1], tuned.shape[1] - plain.shape[1]], dim=1)
        torch.testing.assert_close(own, plain, atol=1e-5, rtol=0)
        assert not added.any()
    with between(model, start, 0.5) as network:
        half = network.features(images)
    for end in (tuned, torch.cat((own, added), 1)):
        assert not torch.allclose(half, end, atol=1e-5) or not model.methods
    assert torch.equal(model.features(images), tuned)


def test_half_of_a_low_rank_update_is_half_of_what_folds(images):
    model = build("peft+lora")  # one in the place of the linear maps, one beside them
    randomise(model)
    ours, half = make_vit(), make_vit().state_dict()
    merged = merged_state_dict(model)
    ours.load_state_dict({name: half[name].lerp(merged[name], 0.5) for name in half})
    with between(model, {}, 0.5) as network:
        features = network.features(images)
    torch.testing.assert_close(features, ours.forward_head(ours.forward_features(images), True), atol=1e-5, rtol=1e-5)
    with (
        pytest.raises(ValueError, match=r"no parameter like vit\.nothing"),
        between(model, {"vit.nothing": images}, 0.5),
    ):
        pass
    with pytest.raises(ValueError, match=r"norm\.weight.* are missing"), between(build("layernorm"), {}, 0.5):
        pass


@every_method
def test_one_forward_leaves_nothing_behind_for_the_next(names, freqfit, images):
    model = build(names, freqfit)
    both = model(images)
    torch.testing.assert_close(model(images[:1]), both[:1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(images), both, atol=0, rtol=0)


@every_method
def test_bfloat16_autocast_stays_close(names, freqfit, images):
    model = build(names, freqfit)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    exact = model(images)
    assert (logits.float() - exact).abs().max() < 0.1 * exact.abs().max()


SHAPES = {
    "oblong": dict(img_size=(32, 48)),
    "odd grid": dict(img_size=(40, 24)),
    "registers": dict(reg_tokens=4),
    "average pooling": dict(global_pool="avg"),
    "no class token": dict(class_token=False, global_pool="avg"),
    "pre-norm": dict(pre_norm=True),
    "layer scale": dict(init_values=0.1),
    "attention pooling": dict(class_token=False, global_pool="map"),
    "one block": dict(depth=1),
}


@each(ALONE + MIXES[::3])  # a third of the mixes is enough for so many shapes
@pytest.mark.parametrize("shape", SHAPES)
def test_works_on_every_kind_of_vit(names, freqfit, shape):
    arguments = SHAPES[shape]
    if arguments.get("class_token") is False and "cls" in names:
        with pytest.raises(ValueError, match="class token"):
            build(names, freqfit, vit=make_vit(**arguments))
        return
    if shape == "one block" and "partial-2" in names:
        with pytest.raises(ValueError, match="1 blocks"):
            build(names, freqfit, vit=make_vit(**arguments))
        return
    model = build(names, freqfit, vit=make_vit(**arguments))
    size = arguments.get("img_size", (32, 32))
    logits = model.train()(torch.randn(2, 3, *size))
    logits.sum().backward()
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


# --- parameter counts

COUNTS = {
    "linear": ("linear", "", {}),
    "tinytl-bias": ("tinytl-bias", "", {}),
    "lora r=4": ("lora", "", {"LORA.RANK": 4}),
    "lora r=8": ("lora", "", {"LORA.RANK": 8}),
    "lora r=16": ("lora", "", {"LORA.RANK": 16}),
    "adapter reduction=8": ("adapter", "", {}),
    "adapter reduction=64": ("adapter", "", {"ADAPTER.REDUCTION_FACTOR": 64}),
    "adapter reduction=256": ("adapter", "", {"ADAPTER.REDUCTION_FACTOR": 256}),
    "vpt-deep P=5 project=64": ("prompt", "", {"PROMPT.DEEP": True, "PROMPT.PROJECT": 64}),
    "freqfit 2-D (complex) + linear": ("linear", "freqfit", {}),
    "freqfit* 2-D (real) + linear": ("linear", "freqfit_real", {}),
    "ssf + linear": ("linear", "ssf", {}),
    "freqfit + lora r=8": ("lora", "freqfit", {}),
    "freqfit* + lora r=8": ("lora", "freqfit_real", {}),
    "ssf + lora r=8": ("lora", "ssf", {}),
    "freqfit + adapter 8": ("adapter", "freqfit", {}),
    "freqfit + bias": ("tinytl-bias", "freqfit", {}),
    "ssf + vpt-deep P=5": ("prompt", "ssf", {"PROMPT.DEEP": True}),
    "freqfit 1-D, MAE/MoCo/CLIP linear (196 tokens)": ("linear", "freqfit", {"FREQFIT.TRANSFORM": "1d"}),
    "partial-1 (block + final norm)": ("partial-1", "", {}),
    "partial-2": ("partial-2", "", {}),
    "partial-4": ("partial-4", "", {}),
    "side (AlexNet features 2,469,696 + projection 9216*D + alpha)": ("side", "", {"SIDE.WEIGHTS": ""}),
    **{
        f"vpt-{'deep' if deep else 'shallow'} P={p}": ("prompt", "", {"PROMPT.NUM_TOKENS": p, "PROMPT.DEEP": deep})
        for p in (5, 10, 50, 100)
        for deep in (True, False)
    },
    **{
        f"freqfit 1-D + vpt-deep P={p}": ("prompt", "freqfit", {"PROMPT.NUM_TOKENS": p, "PROMPT.DEEP": True})
        for p in (5, 10, 50)
    },
}
EXPECTED = json.loads((PARITY / "param_counts.json").read_text())


@cache
def _networks(row: str) -> Copies:
    with torch.device("meta"):
        return Copies(create_vit(MODEL_ZOO[row], (224, 224)))


def tuned(row: str, names: str, freqfit: str, cfg) -> TunedViT:
    """A method on a network of the zoo, without the memory and the time that its weights would take."""
    with torch.device("meta"):
        return TunedViT(_networks(row)(), parse(names, freqfit), cfg, num_classes=100)


@pytest.mark.parametrize(("size", "row"), [("B/16", "sup_vitb16_imagenet21k"), ("L/16", "sup_vitl16_imagenet21k")])
def test_parameter_counts_are_the_papers(size, row):
    for name, expected in EXPECTED[size].items():
        methods, freqfit, keys = COUNTS.get(name, ("linear", "", {}))
        cfg = get_cfg().MODEL
        for key, value in keys.items():
            node, last = key.split(".")
            cfg[node][last] = value
        trained = tuned(row, methods, freqfit, cfg).num_trained()
        if name == "backbone":
            assert sum(p.numel() for p in _networks(row)().parameters()) == expected
        elif name == "head C=100":
            assert trained["head"] == expected
        else:
            assert name in COUNTS, f"no count for {name}"
            assert sum(trained.values()) - trained["head"] == expected, name


def study_counts() -> list:
    """(name of the count, methods, keys, expected) of the unifying study, at ViT-B/16 and CLIP's ViT-B/16."""
    keys = {
        "adaptformer b": ("adaptformer", "ADAPTFORMER.WIDTH"),
        "pfeiffer_adapter b": ("adapter", "ADAPTER.WIDTH"),
        "zero_adapter b": ("adapter", "ADAPTER.WIDTH"),
        "houlsby_adapter b": ("houlsby", "HOULSBY.WIDTH"),
        "convpass b": ("convpass", "CONVPASS.WIDTH"),
        "repadapter b": ("repadapter", "REPADAPTER.WIDTH"),
        "lora r": ("lora", "LORA.RANK"),
        "fact_tt r": ("fact_tt", "FACT_TT.RANK"),
        "fact_tk r": ("fact_tk", "FACT_TK.RANK"),
        "vpt_shallow n": ("prompt", "PROMPT.NUM_TOKENS"),
        "vpt_deep n": ("prompt", "PROMPT.NUM_TOKENS"),
        "attn_full": ("attention_tuning", "ATTENTION_TUNING.BLOCKS"),
        "mlp_full": ("mlp_tuning", "MLP_TUNING.BLOCKS"),
        "block": ("block_tuning", "BLOCK_TUNING.BLOCKS"),
    }
    # Not ours: VQT's scalar per slot; what the study's block 1 trains by substring.
    other = ("vqt", "mlp_full [1]", "block [1]")
    rows = []
    for name, expected in json.loads((ROOT / "tests" / "parity" / "param_counts_vitb.json").read_text())[
        "counts"
    ].items():
        if name.startswith(other):
            continue
        kind, _, number = name.partition(" [" if "[" in name else "=")
        method, key = keys.get(kind, ("bitfit" if name == "bitfit" else name, ""))
        extra = (
            {key: [int(i) for i in number.rstrip("]").split(",")] if "[" in name else int(number.split()[0])}
            if key
            else {}
        )
        extra |= {"PROMPT.DEEP": kind == "vpt_deep n", "LORA.TARGETS": ["attn.qkv"]}
        rows.append(pytest.param(method, extra, expected, id=name))
    return rows


@pytest.mark.parametrize(("methods", "keys", "expected"), study_counts())
def test_parameter_counts_are_the_studys(methods, keys, expected):
    cfg = get_cfg().MODEL
    for key, value in keys.items():
        node, last = key.split(".")
        assert type(cfg[node][last]) is type(value)
        cfg[node][last] = value
    rows = {"vit_b16_sup": "sup_vitb16_imagenet21k", "vit_b16_clip": "clip_vitb16", "vit_b14_dinov2": "dinov2_vitb14"}
    for arch, row in rows.items():
        trained = tuned(row, methods, "", cfg).num_trained()
        assert sum(trained.values()) - trained["head"] == expected[arch], arch


# --- the engine


def test_unknown_site_is_named():
    class Lost(Method):
        def attach(self, cfg, vit, tokens):
            self.after("blocks.0.attn.query", torch.nn.Identity())

    METHODS["lost"] = Lost
    try:
        with pytest.raises(ValueError, match=r"'lost'.*no module 'blocks\.0\.attn\.query'"):
            make_model("lost")
    finally:
        del METHODS["lost"]


def test_two_methods_in_the_place_of_one_operation_are_refused():
    with pytest.raises(ValueError, match=r"'peft' and 'vera' both replace what blocks\.0\.attn\.qkv computes"):
        make_model("vera+peft")


def test_order_does_not_depend_on_how_the_user_writes_it():
    one, other = make_model("lora+ssf+prompt", "freqfit"), make_model("prompt+ssf+lora", "freqfit")
    assert wiring(one.vit, one.methods) == wiring(other.vit, other.methods)
    before = [type(tap).__name__ for tap in one.sites["blocks.0"].before]
    assert before == ["Insert", "SpectralFilter"]  # prompts are filtered too


def test_a_site_computes_its_formula():
    class Add(torch.nn.Module):
        def __init__(self, number):
            super().__init__()
            self.number = number

        def forward(self, x):
            return x + self.number

    double = torch.nn.Linear(1, 1, bias=False)
    double.weight.data.fill_(2.0)
    site = Site()
    site.add("before", Add(1.0))
    site.add("beside", Add(10.0))
    site.add("after", Add(100.0))
    double.register_forward_pre_hook(site.enter)
    double.register_forward_hook(site.leave, with_kwargs=True)
    assert double(torch.tensor([3.0])).item() == (2 * 4) + (4 + 10) + 100


def test_lora_and_fact_join_behind_ssf_and_difffit_scales_all():
    """The order of the unifying study: SSF, then FacT, then LoRA, then the branch's scale."""
    model = make_model("ssf+lora+fact_tt+difffit", MODEL__LORA__TARGETS=["attn.proj"])
    randomise(model)
    taps = {(name, verb): tap for name, site, verb, tap in wires(model.methods) if site == "blocks.1.attn.proj"}
    linear, x = model.vit.blocks[1].attn.proj, torch.randn(2, 17, 32)
    y = taps["ssf", "after"](torch.nn.functional.linear(x, linear.weight, linear.bias))
    y = taps["difffit", "after"](y + taps["fact_tt", "beside"](x) + taps["lora", "beside"](x))
    torch.testing.assert_close(linear(x), y)


def test_no_file_calls_forward_directly():
    for file in Path("src").rglob("*.py"):
        assert not re.search(r"\w\.forward\(", file.read_text().replace("super().forward(", "")), file


@pytest.mark.parametrize("names", ["lorra", "lora+lora", "partial-0x", "prompt+tinytl-bias+bias", "end2end+lora"])
def test_methods_that_make_no_sense_are_refused(names):
    with pytest.raises(ValueError, match=r"known|twice|end2end"):
        parse(names)


@pytest.mark.parametrize("freqfit", ["FreqFit", "fourier"])
def test_unknown_freqfit_is_an_error(freqfit):
    with pytest.raises(ValueError, match="unknown FREQFIT"):
        parse("linear", freqfit)


def test_frozen_vit_stays_in_eval_mode_but_end2end_does_not():
    for names, trains in (("lora", False), ("prompt", False), ("end2end", True)):
        model = make_model(names).train()
        assert model.vit.training is trains
        assert model.head.training
        assert model.eval().vit.training is False


# --- single methods


def test_filter_is_a_circular_convolution():
    """The 1-D filter of a unit impulse spectrum e^{-2 pi i k / N} delays the sequence by one token."""
    length, dim = 6, 3
    tap = SpectralFilter(Fourier(1, (length,)), dim)
    angle = -2 * torch.pi * torch.arange(length // 2 + 1) / length
    tap.filter.data = torch.stack((angle.cos(), angle.sin()), -1)[:, None].expand(-1, dim, -1).contiguous()
    tap.scale.data.fill_(1.0)
    tap.shift.data.fill_(0.0)
    x = torch.randn(2, 1 + length, dim)
    y = tap(x)
    torch.testing.assert_close(y[:, 1:] - x[:, 1:], x[:, 1:].roll(1, dims=1), atol=1e-5, rtol=0)
    assert torch.equal(y[:, :1], x[:, :1])


def both_forms(tap: SpectralFilter, x: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """What is added to ``x``, and the gradients of its squared sum, by matrices and by FFT."""
    found = []
    for form in (tap.to(DEVICE).change_by_matrix, tap.change_by_fft):
        inputs = x.to(DEVICE, copy=True).requires_grad_()
        y = form(inputs)
        tensors = (y, *torch.autograd.grad(y.square().sum(), (inputs, *tap.parameters())))
        found.append([tensor.cpu() for tensor in tensors])
    tap.cpu()
    return found


def by_definition(tap: SpectralFilter, x: torch.Tensor) -> list[torch.Tensor]:
    """The same in float64, as the paper defines it."""
    skip, shape = tap.fourier.skip, tap.fourier.shape
    axes = tuple(range(1, 1 + len(shape)))
    x, *params = (tensor.detach().double().requires_grad_() for tensor in (x, *tap.parameters()))
    weight = params[0] if tap.real else torch.view_as_complex(params[0])
    spectrum = torch.fft.rfftn(x[:, skip:].unflatten(1, shape), dim=axes, norm="ortho") * weight
    filtered = torch.fft.irfftn(spectrum, s=shape, dim=axes, norm="ortho").flatten(1, -2)
    y = torch.cat((torch.zeros_like(x[:, :skip]), filtered * params[1] + params[2]), dim=1)
    return [y, *torch.autograd.grad(y.square().sum(), (x, *params))]


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 4), (14, 14), (31, 30), (7,), (20,), (247,), (1,), (2, 1)])
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("skip", [0, 1, 5])
def test_matrices_and_ffts_do_what_the_formula_says(shape, real, skip):
    """Both forms, in float32, are as far from float64 as rounding puts them, whatever machine adds up in what order.

    A sum of n terms, added one after the other with independent errors, is off by no more than about sqrt(n) roundings
    of its value (Higham & Mary, 2019); every other order, and an FFT, by less. A gradient has behind it at most five
    such sums: two transforms, the same two backwards, and one over all tokens of the batch. Norms, not single values:
    one of them may be close to zero, as the shift's gradient would be, the sum of 2 y, with a shift of zero.
    """
    torch.manual_seed(0)
    tap = SpectralFilter(Fourier(skip, shape), 6, real)
    tap.filter.data.normal_()
    tap.shift.data.add_(1.0)
    x = torch.randn(3, skip + math.prod(shape), 6)
    rounding = torch.finfo(torch.float32).eps / 2
    transform, over_batch = math.sqrt(2 * (math.prod(shape) + 1)), math.sqrt(3 * math.prod(shape))
    steps = [2 * transform, *4 * [4 * transform + over_batch]]
    exact = by_definition(tap, x)
    for form in both_forms(tap, x):
        for tensor, right, step in zip(form, exact, steps, strict=True):
            assert tensor.shape == right.shape
            assert (tensor - right).norm() <= step * rounding * right.norm()
    assert torch.equal(tap(x)[:, :skip], x[:, :skip])


@pytest.mark.parametrize("shape", [(14, 14), (5, 4), (197,), (46,)])
def test_bfloat16_is_off_by_as_much_as_it_rounds(shape):
    """As on machines that multiply bfloat16: 1 % of the largest value that is added, 2 % of the largest gradient."""
    torch.manual_seed(0)
    tap = SpectralFilter(Fourier(1, shape), 24)
    tap.filter.data.normal_()
    tap.fourier.cpu_has_bfloat16 = True
    x = 4 * torch.randn(8, 1 + math.prod(shape), 24) + 3
    _, (exact, *exact_grads) = both_forms(tap, x)
    inputs = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = tap(inputs)
    assert y.dtype == torch.float32  # the tokens themselves are not rounded
    assert (y - x - exact).abs().max() < 0.01 * exact.abs().max()
    grads = torch.autograd.grad((y - inputs).square().sum(), (inputs, *tap.parameters()))
    for one, other in zip(grads, exact_grads, strict=True):
        assert (one - other).abs().max() < 0.02 * other.abs().max()


def test_autocast_computes_in_float32_where_bfloat16_is_emulated():
    tap, x = SpectralFilter(Fourier(1, (4, 4)), 8), torch.randn(2, 17, 8)
    tap.fourier.cpu_has_bfloat16 = False
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tap(x), tap.eval()(x))
        inside = tap(x)
    assert torch.equal(inside, tap(x))


def test_ffts_do_not_depend_on_what_a_real_spectrum_cannot_hold(monkeypatch):
    """cuFFT may read the imaginary parts of the first and last frequency; here a transform that does."""
    honest = torch.fft.irfft

    def reads_them(spectrum, n, dim, norm):
        leak = spectrum.imag.narrow(dim, 0, 1).abs().sum() + spectrum.imag.narrow(dim, -1, 1).abs().sum() * (n % 2 == 0)
        return honest(spectrum, n=n, dim=dim, norm=norm) + leak

    for shape in [(4, 4), (5, 3), (6,), (7,)]:
        tap, x = SpectralFilter(Fourier(1, shape), 3), torch.randn(2, 1 + math.prod(shape), 3)
        tap.filter.data.normal_()
        with monkeypatch.context() as patch:
            patch.setattr(torch.fft, "irfft", reads_them)
            y = tap.change_by_fft(x)
        torch.testing.assert_close(y, tap.change_by_matrix(x), atol=1e-5, rtol=0)


def test_long_sequences_are_filtered_by_fft(monkeypatch):
    long = SpectralFilter(Fourier(1, (33, 33)), 4)
    assert not list(long.fourier.buffers())
    x = torch.randn(2, 1 + 33 * 33, 4)
    assert torch.equal(long(x), x + long.change_by_fft(x))
    model = make_model("linear", "freqfit", vit=make_vit(img_size=136))  # 17x17 patches
    monkeypatch.setitem(MATRIX_LIMIT, "cpu", 256)
    torch._dynamo.reset()
    big = torch.randn(1, 3, 136, 136)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(big), model(big), atol=1e-5, rtol=1e-5)


def test_all_filters_of_a_size_share_their_matrices():
    model = copy.deepcopy(make_model("linear", "freqfit")).to(torch.float32)
    taps = [tap for _, _, _, tap in wires(model.methods)]
    assert len(taps) == 4
    assert len({tap.fourier.padded_analysis.data_ptr() for tap in taps}) == 1
    assert not [name for name in model.state_dict() if "padded" in name]


@pytest.mark.parametrize("freqfit", ["freqfit", "freqfit_real", "ssf"])
def test_identity_start_is_the_pretrained_model(freqfit, images):
    keys = {f"MODEL__{name}__INIT": "identity" for name in ("FREQFIT", "FREQFIT_REAL", "SCALE_SHIFT")}
    model = make_model("linear", freqfit, **keys)
    torch.testing.assert_close(model.features(images), make_model("linear").features(images), atol=1e-6, rtol=0)


def test_freqfit_sizes_follow_the_tokens_of_each_block():
    keys = dict(MODEL__PROMPT__NUM_TOKENS=3, MODEL__PROMPT__DEEP=True, MODEL__PROMPT__REVERSE_DEEP=True)
    model = make_model("prompt", "freqfit", MODEL__PROMPT__NUM_DEEP_LAYERS=1, **keys)
    shapes = [tap.fourier.shape for _, _, _, tap in wires(model.methods) if isinstance(tap, SpectralFilter)]
    assert shapes == [(16,), (16,), (19,), (19,)]
    flat = make_model("prompt", "freqfit", MODEL__FREQFIT__TRANSFORM="2d", **keys)
    shapes = [tap.fourier.shape for _, _, _, tap in wires(flat.methods) if isinstance(tap, SpectralFilter)]
    assert shapes == [(4, 4)] * 4


@pytest.mark.parametrize(
    ("keys", "lengths"),
    [
        (dict(DEEP=False), [20, 20, 20, 20]),
        (dict(DEEP=True), [20, 20, 20, 20]),
        (dict(DEEP=True, NUM_DEEP_LAYERS=1), [20, 20, 20, 20]),
        (dict(DEEP=True, NUM_DEEP_LAYERS=1, FORWARD_DEEP_NOEXPAND=True), [20, 20, 17, 17]),
        (dict(DEEP=True, NUM_DEEP_LAYERS=2, REVERSE_DEEP=True), [17, 20, 20, 20]),
        (dict(DEEP=True, DEEP_SHARED=True), [20, 20, 20, 20]),
        (dict(DEEP=True, PROJECT=8, DEEP_SHARED=True, REVERSE_DEEP=True), [20, 20, 20, 20]),
    ],
)
def test_prompts_are_where_the_keys_say(keys, lengths, images):
    model = make_model("prompt", MODEL__PROMPT__NUM_TOKENS=3, **{f"MODEL__PROMPT__{k}": v for k, v in keys.items()})
    seen = []
    for block in model.vit.blocks:
        block.norm1.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    model.vit.norm.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    model(images)
    assert seen == lengths
    sets = (
        {"blocks.0"} if not keys["DEEP"] else {site for _, site, _, t in wires(model.methods) if hasattr(t, "prompts")}
    )
    count = sum(hasattr(tap, "prompts") for tap in model.methods["prompt"].taps)
    assert count == (len(sets) if not keys.get("DEEP_SHARED") else 2)
    state = model.tuned_state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)


@pytest.mark.parametrize("pool", ["img_pool", "prompt_pool", "imgprompt_pool"])
def test_class_token_vits_pool_the_mean_before_the_norm(pool, images):
    model = make_model("prompt", MODEL__PROMPT__NUM_TOKENS=3, MODEL__PROMPT__VIT_POOL_TYPE=pool)
    seen = []
    model.vit.norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    features = model.features(images)
    rows = {"img_pool": slice(4, None), "prompt_pool": slice(1, 4), "imgprompt_pool": slice(1, None)}[pool]
    torch.testing.assert_close(features, model.vit.norm(seen[0][:, rows].mean(1)))


def test_prompt_dropout_differs_between_images_and_acts_in_training_only():
    model = make_model("prompt", MODEL__PROMPT__DROPOUT=0.5, MODEL__PROMPT__NUM_TOKENS=8)
    same = torch.ones(2, 3, 32, 32)
    one, other = model(same)
    torch.testing.assert_close(one, other)
    one, other = model.train()(same)
    assert not torch.allclose(one, other)


def test_lora_scale_is_alpha_over_rank_also_below_one():
    low_rank = LowRank(4, 4, rank=8, alpha=2.0)
    assert low_rank.scale == 0.25


@pytest.mark.parametrize(
    ("targets", "parameters"),
    [(["attn.q", "attn.v"], 3 * 4 * 2 * 64), (["attn.qkv"], 3 * 4 * (32 + 96)), (["mlp.fc2"], 3 * 4 * (128 + 32))],
)
def test_lora_adapts_its_targets_only(targets, parameters, images):
    model = make_model("lora", MODEL__LORA__RANK=4, MODEL__LORA__TARGETS=targets)
    assert model.num_trained()["lora"] == parameters
    before = model.vit.blocks[0].attn.qkv(torch.ones(1, 1, 32))
    randomise(model)
    after = model.vit.blocks[0].attn.qkv(torch.ones(1, 1, 32))
    changed = (before != after).flatten().unflatten(0, (3, 32)).any(1).tolist()
    assert changed == {"attn.q": [True, False, True], "attn.qkv": [True] * 3, "mlp.fc2": [False] * 3}[targets[0]]


def test_adapter_matrices_both_get_gradients_from_the_second_step_on(images):
    model = make_model("adapter")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    start = copy.deepcopy(model.methods["adapter"].state_dict())
    for _ in range(2):
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step()
    for name, value in model.methods["adapter"].state_dict().items():
        assert not torch.equal(value, start[name]), name


@pytest.mark.parametrize("size", [(1, 1), (6, 6), (3, 13), (12, 7)])
def test_the_deterministic_form_of_adaptive_pooling_is_torchs(size):
    maps = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0))
    rows, cols = (averages(side, 6, maps.device) for side in size)
    torch.testing.assert_close(rows @ maps @ cols.T, torch.nn.AdaptiveAvgPool2d(6)(maps), atol=1e-6, rtol=1e-6)


def test_side_weights_missing_says_where_to_get_them():
    cfg = make_cfg(MODEL__SIDE__WEIGHTS="nowhere/alexnet.pth")
    with pytest.raises(FileNotFoundError, match=r"download\.pytorch\.org"):
        TunedViT(make_vit(), parse("side"), cfg.MODEL, 5)


def test_partial_trains_exactly_its_blocks():
    vit = make_vit(depth=12)
    model = make_model("partial-2", vit=vit)
    trained = {
        name.split(".")[1] for name, p in vit.named_parameters() if p.requires_grad and name.startswith("blocks")
    }
    assert trained == {"10", "11"}
    model = make_model("partial", vit=make_vit(depth=12), MODEL__PARTIAL__NORM=False)
    assert not any(p.requires_grad for p in model.vit.norm.parameters())


def test_zoo_clip_archs_are_openais():
    for name in ("clip_vitb16", "clip_vitb32", "clip_vitl14"):
        with torch.device("meta"):
            vit = create_vit(MODEL_ZOO[name], (224, 224))
        assert isinstance(vit.blocks[0].mlp.act, timm.layers.QuickGELU)
        assert vit.norm_pre.eps == vit.blocks[0].norm1.eps == 1e-5
        assert vit.patch_embed.proj.bias is None


# --- the methods of the unifying study


@pytest.mark.parametrize(
    ("names", "keys", "expected"),
    [
        ("block_tuning", {"BLOCK_TUNING__BLOCKS": [1, -1, 11]}, {"blocks.1.", "blocks.11."}),
        (
            "attention_tuning",
            {"ATTENTION_TUNING__BLOCKS": [0], "ATTENTION_TUNING__PART": "qkv"},
            {"blocks.0.attn.qkv."},
        ),
        ("attention_tuning", {}, {"blocks.11.attn.qkv.", "blocks.11.attn.proj."}),
        ("mlp_tuning", {"MLP_TUNING__BLOCKS": [1], "MLP_TUNING__PART": "fc2"}, {"blocks.1.mlp.fc2."}),
        ("layernorm", {}, {f"blocks.{i}.norm{j}." for i in range(12) for j in (1, 2)} | {"norm."}),
    ],
)
def test_chosen_parts_train_by_exact_name(names, keys, expected):
    vit = make_vit(depth=12)
    make_model(names, vit=vit, **{f"MODEL__{key}": value for key, value in keys.items()})
    trained = {name for name, param in vit.named_parameters() if param.requires_grad}
    assert trained == {name for name, _ in vit.named_parameters() if name.startswith(tuple(expected))}


def test_blocks_that_are_not_there_are_named():
    with pytest.raises(ValueError, match=r"MODEL.MLP_TUNING.BLOCKS names \[3, -4\], but the ViT has 3 blocks"):
        make_model("mlp_tuning", MODEL__MLP_TUNING__BLOCKS=[0, 3, -4])


@pytest.mark.parametrize("init", ["zero", "lora_kaiming", "lora_xavier", "xavier"])
@pytest.mark.parametrize("keys", [{}, {"MODE": "parallel"}, {"MODE": "parallel", "INPUT": "residual"}])
def test_adapters_start_where_their_init_says(init, keys, images):
    keys = {"INIT": init, "LEARN_SCALE": True, "SCALE": 0.5, "SITES": ["attn", "mlp"], **keys}
    model = make_model("adapter", **{f"MODEL__ADAPTER__{key}": value for key, value in keys.items()})
    moved = (model.features(images) - make_model("linear").features(images)).abs().max()
    assert (moved > 1e-3) == (init == "xavier")
    scales = [param for name, param in model.methods.named_parameters() if name.endswith("scale")]
    assert len(scales) == 6
    assert all(scale.item() == 0.5 for scale in scales)
    biases = [param for name, param in model.methods.named_parameters() if name.endswith("bias")]
    assert len(biases) == 12
    assert all((1e-7 < bias.std() < 1e-5) if init == "xavier" else not bias.any() for bias in biases)
    model(images).square().sum().backward()
    assert (scales[0].grad.abs().item() > 0) == (init == "xavier")


def test_adaptformer_reads_the_tokens_before_the_norm(images):
    model = make_model("adaptformer")
    randomise(model)
    block, seen = model.vit.blocks[1], {}
    block.norm2.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    block.mlp.fc1.register_forward_pre_hook(lambda module, args: seen.update(h=args[0]))
    block.register_forward_hook(lambda module, args, y: seen.update(y=y))
    model(images)
    tap = next(tap.tap for _, site, _, tap in wires(model.methods) if site == "blocks.1.mlp")
    mlp = block.mlp.fc2(block.mlp.act(block.mlp.fc1(seen["h"])))
    torch.testing.assert_close(seen["y"], seen["x"] + mlp + tap(seen["x"]))
    assert not any(getattr(tap, "kept", None) is not None for _, _, _, tap in wires(model.methods))


def test_convpass_sees_neighbours_on_the_grid_and_nothing_beside_the_prefix():
    tap = ConvBypass(4, 3, skip=2, grid=(3, 5), scale=1.0, dropout=0.0).eval()
    torch.nn.init.normal_(tap.up.weight)
    x = torch.randn(1, 2 + 15, 4)
    changed = []
    for token in (0, 1, 2 + 1 * 5 + 0):  # two of the prefix, the patch in row 1, column 0
        other = x.clone()
        other[:, token] += 1.0
        changed.append((tap(other) != tap(x)).any(-1)[0].nonzero().flatten().tolist())
    assert changed == [[0], [1], [2, 3, 7, 8, 12, 13]]


@pytest.mark.parametrize("reads", ["norm", "residual", "norm,residual", "residual,norm"])
def test_convpass_reads_behind_or_before_each_branchs_norm(reads):
    """As the study's ft_attn_ln and ft_mlp_ln, "after" and "before" the norm; its answer passes LayerScale."""
    vit, plain = make_vit(init_values=0.5), make_vit(init_values=0.5).blocks[1]
    model = make_model("convpass", vit=vit, MODEL__CONVPASS__INPUT=reads)
    randomise(model)
    taps = {site: getattr(tap, "tap", tap) for _, site, verb, tap in wires(model.methods) if verb == "beside"}
    attn, mlp = (taps[f"blocks.1.{part}"] for part in ("attn", "mlp"))
    of_attn, of_mlp = (reads.split(",") * 2)[:2]
    x = torch.randn(2, 17, 32)
    y = plain.norm1(x)
    x_attn = x + plain.ls1(plain.attn(y) + attn(y if of_attn == "norm" else x))
    y = plain.norm2(x_attn)
    expected = x_attn + plain.ls2(plain.mlp(y) + mlp(y if of_mlp == "norm" else x_attn))
    torch.testing.assert_close(model.vit.blocks[1](x), expected)


@pytest.mark.parametrize("pool", [dict(global_pool="avg"), dict(class_token=False, global_pool="map")])
def test_prompts_can_be_gone_before_tokens_are_averaged_or_attended_to(pool, images):
    """As in the unifying study: what is pooled is the patches, behind blocks that saw the prompts."""
    keys = {"MODEL__PROMPT__NUM_TOKENS": 3, "MODEL__PROMPT__DEEP": True}
    model = make_model("prompt", vit=make_vit(**pool), MODEL__PROMPT__VIT_POOL_TYPE="img_pool", **keys)
    with_prompts = make_model("prompt", vit=make_vit(**pool), **keys)
    assert not torch.allclose(model.features(images), with_prompts.features(images))
    vit = make_vit(**pool)
    x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    prefix = x.shape[1] - 16
    for block, tap in zip(vit.blocks, model.methods["prompt"].taps, strict=False):
        prompts = tap.prompts.expand(2, -1, -1)
        x = block(torch.cat((x[:, :prefix], prompts, x[:, prefix:]), dim=1))
        x = torch.cat((x[:, :prefix], x[:, prefix + 3 :]), dim=1)
    expected = vit.forward_head(vit.norm(x), pre_logits=True)
    torch.testing.assert_close(model.features(images), expected, atol=1e-5, rtol=1e-5)


def test_convpass_skips_the_prompts_that_each_block_has():
    keys = dict(MODEL__PROMPT__NUM_TOKENS=3, MODEL__PROMPT__DEEP=True, MODEL__PROMPT__REVERSE_DEEP=True)
    model = make_model("convpass+prompt", MODEL__PROMPT__NUM_DEEP_LAYERS=1, **keys)
    assert [tap.skip for tap in model.methods["convpass"].taps] == [1, 1, 1, 1, 4, 4]


def test_groups_of_repadapter_are_a_block_diagonal():
    tap = GroupedBottleneck(8, 4, groups=2, scale=0.5, dropout=0.0)
    tap.weight.data.normal_()
    tap.bias.data.normal_()
    dense = torch.block_diag(*tap.weight.chunk(2))
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(tap(x), x + 0.5 * (tap.down(x) @ dense.T + tap.bias))
    with pytest.raises(ValueError, match=r"32 channels of blocks.0.attn.qkv do not divide"):
        make_model("repadapter", MODEL__REPADAPTER__GROUPS=3, MODEL__REPADAPTER__WIDTH=6)


@pytest.mark.parametrize("form", ["fact_tt", "fact_tk"])
def test_factors_live_once_and_the_mlp_may_be_any_multiple(form, images):
    model = make_model(form, vit=make_vit(mlp_ratio=3.0), **{f"MODEL__{form.upper()}__RANK": 4})
    names = [name for name in model.methods.state_dict() if "factors" in name]
    assert len(names) == (2 if form == "fact_tt" else 4)
    expected = 2 * 4 * 32 + (3 * (4 + 2 * 3) * 16 if form == "fact_tt" else 3 * (4 + 2 * 3) * 4 + 64)
    assert model.num_trained()[form] == expected
    randomise(model)
    model(images).sum().backward()
    with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.fc1: its 80 channels are not a multiple of the 32"):
        make_model(form, vit=make_vit(mlp_ratio=2.5))


def test_vqts_queries_read_the_tokens_and_nobody_reads_them(images):
    """Against timm's own block, with the queries as tokens that a mask hides from everyone."""
    model = make_model("vqt", MODEL__VQT__NUM_QUERIES=3, vit=make_vit(init_values=0.5, qk_norm=True))
    seen = []
    for block in model.vit.blocks:
        block.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    features = model.features(images)
    plain = make_vit(init_values=0.5, qk_norm=True)
    plain.reset_classifier(0)
    torch.testing.assert_close(features[:, :32], plain(images))
    taps = [tap for tap in model.methods["vqt"].taps if hasattr(tap, "queries")]
    mask = torch.zeros(20, 20).masked_fill(torch.arange(20) >= 17, -torch.inf)
    for i, (block, tap, x) in enumerate(zip(plain.blocks, taps, seen, strict=True)):
        y = block(torch.cat((x, tap.queries.expand(2, -1, -1)), dim=1), attn_mask=mask)
        answers = features[:, 32 + i * 96 : 32 + (i + 1) * 96]
        torch.testing.assert_close(answers, y[:, 17:].flatten(1), atol=1e-5, rtol=1e-5)
    model.head(features).square().sum().backward()
    assert all(tap.queries.grad.abs().max() > 0 for tap in taps)


def test_vqts_queries_have_the_attentions_dropout_in_training_only(images):
    model = make_model("vqt", MODEL__VQT__NUM_QUERIES=1, vit=make_vit(attn_drop_rate=0.5))
    one, two = model.features(images), model.features(images)
    assert torch.equal(one, two)
    model.vit.blocks[0].attn.train()
    one, two = model.features(images), model.features(images)
    assert not torch.allclose(one[:, 32:64], two[:, 32:64])  # answers to keys and values that no dropout has met


def test_vqts_answers_join_behind_what_side_makes(images):
    both, side = make_model("vqt+side"), make_model("side")
    both.methods["side"].load_state_dict(side.methods["side"].state_dict())
    features = both.features(images)
    assert features.shape == (2, 32 + 3 * 32)
    torch.testing.assert_close(features[:, :32], side.features(images))


def test_vqt_with_convpass_is_refused():
    with pytest.raises(ValueError, match="name one of them"):
        parse("convpass+vqt")


def test_lora_shares_one_a_among_its_targets(images):
    keys = dict(MODEL__LORA__RANK=4, MODEL__LORA__SHARE_A=True)
    model = make_model("lora", MODEL__LORA__TARGETS=["attn.q", "attn.v"], **keys)
    assert model.num_trained()["lora"] == 3 * 4 * (32 + 2 * 32)
    randomise(model)
    tap = model.methods["lora"].taps[0]
    x = torch.randn(1, 5, 32)
    q, k, v = tap(x).chunk(3, dim=-1)
    assert torch.equal(k, torch.zeros_like(k))
    torch.testing.assert_close(q, 2.0 * tap.ups["q"](tap.down(x)))
    torch.testing.assert_close(v, 2.0 * tap.ups["v"](tap.down(x)))


@pytest.mark.parametrize(("bias", "count"), [("none", 0), ("lora_only", 3 * (96 + 128)), ("all", 32 * (11 * 3 + 2))])
def test_lora_trains_the_biases_it_is_told_to(bias, count):
    model = make_model("lora", MODEL__LORA__TARGETS=["attn.q", "mlp.fc1"], MODEL__LORA__BIAS=bias)
    assert model.num_trained()["vit"] == count


def test_lora_without_scaling_and_with_dropout():
    keys = dict(MODEL__LORA__RANK=4, MODEL__LORA__ALPHA=0.0, MODEL__LORA__DROPOUT=0.5)
    for targets in (["attn.qkv"], ["attn.q"]):
        tap = make_model("lora", MODEL__LORA__TARGETS=targets, **keys).methods["lora"].taps[0]
        assert tap.scale == 1.0
        for param in tap.parameters():
            param.data.normal_()
        x = torch.ones(1, 2, 32)
        assert torch.equal(tap(x), tap(x))
        tap.train()
        assert not torch.equal(tap(x), tap(x))


@pytest.mark.parametrize(
    ("method", "keys", "says"),
    [
        ("adapter", {"MODE": "before", "INIT": "ones"}, ["MODE is 'before'", "INIT is 'ones'"]),
        ("adapter", {"INPUT": "residual", "SITES": []}, ["needs MODE 'parallel'", "SITES is []"]),
        ("houlsby", {"ACTIVATION": "tanh", "WIDTH": -1}, ["ACTIVATION is 'tanh'", "WIDTH is -1"]),
        ("adaptformer", {"DROPOUT": 1.0}, ["DROPOUT is 1.0"]),
        ("convpass", {"CONV_INIT": "zero", "WIDTH": 0}, ["CONV_INIT is 'zero'", "WIDTH is 0"]),
        ("convpass", {"INPUT": "norm,norm", "SITES": ["mlp"]}, ["INPUT is 'norm,norm'"]),
        ("repadapter", {"WIDTH": 5}, ["not a multiple of GROUPS 2"]),
        ("fact_tt", {"RANK": 0}, ["RANK is 0"]),
        ("vqt", {"NUM_QUERIES": 0}, ["NUM_QUERIES is 0"]),
        ("lora", {"SHARE_A": True, "TARGETS": ["attn.qkv"], "BIAS": "some"}, ["SHARE_A needs", "BIAS is 'some'"]),
        ("attention_tuning", {"PART": "q", "BLOCKS": []}, ["PART is 'q'", "BLOCKS is []"]),
        ("block_tuning", {"BLOCKS": ["last"]}, ["BLOCKS is ['last']"]),
        ("ssf", {"POOLED_NORM": "both"}, ["POOLED_NORM is 'both'"]),
        (
            "rlrr",
            {"QKV": "q", "SCALE_SHIFT": ["norm3"], "DROPOUT": 1.0},
            ["QKV is 'q'", "SCALE_SHIFT is", "DROPOUT is"],
        ),
        ("block", {"SPLIT": 11, "NUM_BLOCKS": 2}, ["set one of them"]),
        ("block", {"SPLIT": -1, "NUM_BLOCKS": 0}, ["SPLIT is -1", "NUM_BLOCKS is 0"]),
    ],
)
def test_wrong_values_are_all_named(method, keys, says):
    with pytest.raises(ConfigError) as error:
        model_cfg(method, {config_name(method): keys})
    problems = str(error.value).splitlines()[1:]
    assert len(problems) == len(says)
    assert all(any(part in problem for problem in problems) for part in says), problems


@pytest.mark.parametrize("method", METHODS)
def test_defaults_are_right(method):
    """Configs that set none of a method's keys rely on it: they are checked without its code."""
    cfg = METHODS[method].defaults()
    assert METHODS[method].problems(cfg) == []
    assert not [problem for key in declared(cfg).values() if (problem := key.problem(key.default))]


@pytest.mark.parametrize(
    ("method", "keys", "says"),
    [
        ("lora", {"RANK": 4, "TARGETS": ["attn.qkv", "mlp.fc1"]}, "updates of rank 4 to qkv and fc1"),
        ("adapter", {"REDUCTION_FACTOR": 4, "SITES": ["attn"]}, "bottlenecks of width D/4 behind every attention"),
        ("adaptformer", {"WIDTH": 8}, "scaled bottlenecks of width 8 beside every MLP"),
        ("prompt", {"NUM_TOKENS": 10, "DEEP": True}, "10 prompt tokens before every block"),
        ("vqt", {"NUM_QUERIES": 3}, "3 queries in every block"),
        ("partial", {"NUM_BLOCKS": 3, "NORM": False}, "the last 3 blocks"),
        ("mlp_tuning", {"BLOCKS": [0, -1], "PART": "fc1"}, "the fc1 of blocks 0 and -1"),
        ("block", {"NUM_BLOCKS": 3}, "3 new blocks"),
    ],
)
def test_what_a_method_learns_is_said_for_its_keys(method, keys, says):
    cfg = METHODS[method].defaults()
    cfg.update(keys)
    assert METHODS[method].described(cfg).startswith(says)


# --- RLRR and Block Expansion


@pytest.mark.parametrize(
    ("methods", "keys", "expected"),
    [
        ("rlrr", {}, {"B": 288_768, "L": 765_952}),
        ("rlrr", {"RLRR__QKV": "fused"}, {"B": 270_336, "L": 716_800}),
        ("block", {}, {"B": 7_087_872, "L": 12_596_224}),
        ("block", {"BLOCK__SPLIT": 11}, {"B": 7_087_872, "L": 25_192_448}),
        ("block", {"BLOCK__SPLIT": 6}, {"B": 14_175_744}),
        ("block", {"BLOCK__NUM_BLOCKS": 3}, {"B": 21_263_616}),
        ("block", {"BLOCK__SPLIT": 3}, {"B": 28_351_488}),
        ("partial-3", {"PARTIAL__NORM": False}, {"B": 21_263_616}),
    ],
)
def test_parameter_counts_are_rlrrs_and_block_expansions(methods, keys, expected):
    cfg = make_cfg(**{f"MODEL__{key}": value for key, value in keys.items()}).MODEL
    for size, count in expected.items():
        row = {"B": "dino_vitb16", "L": "sup_vitl16_imagenet21k"}[size]
        trained = tuned(row, methods, "", cfg).num_trained()
        head = trained.pop("head")
        assert (sum(trained.values()), head) == (count, 76_900 if size == "B" else 102_500)


def test_rlrr_is_a_rank_one_rescaling_of_every_weight(images):
    model = make_model("rlrr", MODEL__RLRR__DROPOUT=0.0)
    randomise(model)
    taps = {site: tap for _, site, verb, tap in wires(model.methods) if verb == "beside"}
    state = merged_state_dict(model)
    for site, tap in taps.items():
        weight, bias = (model.vit.state_dict()[f"{site}.{name}"] for name in ("weight", "bias"))
        inputs = tap.scale_in.repeat_interleave(len(weight) // len(tap.scale_in), dim=0)  # (out, in)
        wanted = weight + weight * tap.scale_out[:, None] * inputs
        torch.testing.assert_close(state[f"{site}.weight"], wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(state[f"{site}.bias"], bias + tap.bias, atol=1e-5, rtol=1e-5)
    assert [len(tap.scale_in) for tap in taps.values()] == [3, 1, 1, 1] * 3


def test_rlrr_starts_as_far_from_the_pretrained_weights_as_the_original():
    torch.manual_seed(0)
    tap = Rescale(torch.nn.Linear(768, 3 * 768), [768] * 3)
    inputs = tap.scale_in.repeat_interleave(768, dim=0)
    change = tap.linear[0].weight * tap.scale_out[:, None] * inputs
    assert (change.norm() / tap.linear[0].weight.norm()).item() == pytest.approx(0.073, abs=0.005)
    assert not tap.bias.any()


def test_rlrrs_dropout_rises_with_depth_and_acts_in_training_only(images):
    model = make_model("rlrr", MODEL__RLRR__DROPOUT=0.4)
    rates = {site: tap.p for _, site, _, tap in wires(model.methods) if isinstance(tap, torch.nn.Dropout)}
    branches = [f"blocks.{i}.{part}" for i in (1, 2) for part in ("attn", "mlp")]
    assert rates == pytest.approx(dict(zip(branches, (0.2, 0.2, 0.4, 0.4), strict=True)))
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))
    plain = make_model("rlrr", MODEL__RLRR__DROPOUT=0.0)
    assert not any(isinstance(tap, torch.nn.Dropout) for tap in plain.methods["rlrr"].taps)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SwinTransformer(32, 2, window_size=4, embed_dim=16, depths=(1, 2), num_heads=(2, 4), num_classes=0),
        lambda: ConvNeXt(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), num_classes=0),
    ],
)
def test_rlrrs_fused_scales_fold_on_swin_and_convnext(make, images):
    """Separate ones, the default, are in test_backbones.py."""
    torch.manual_seed(0)
    model = make_model("rlrr", vit=make().eval(), MODEL__RLRR__QKV="fused")
    randomise(model)
    torch.manual_seed(0)
    plain = make().eval()
    plain.reset_classifier(0)
    assert not torch.allclose(plain(images), model.features(images), atol=1e-2)
    plain.load_state_dict(merged_state_dict(model))
    torch.testing.assert_close(plain(images), model.features(images), atol=1e-4, rtol=1e-4)
    model.train()(images).sum().backward()
    with pytest.raises(ValueError, match="block needs the tokens of a ViT"):
        make_model("block", vit=make())


@pytest.mark.parametrize("shape", [{}, *SHAPES.values()], ids=["plain", *SHAPES])
def test_expanded_blocks_start_as_the_identity_exactly(shape):
    model, plain = (make_model(name, vit=make_vit(**shape)) for name in ("block", "linear"))
    x = torch.randn(2, 3, *shape.get("img_size", (32, 32)))
    assert torch.equal(model.train().features(x), plain.features(x))


@pytest.mark.parametrize(
    ("depth", "keys", "behind"),
    [
        (12, {}, [11]),
        (12, {"SPLIT": 11}, [10]),
        (12, {"SPLIT": 5}, [4, 9]),
        (12, {"NUM_BLOCKS": 4}, [2, 5, 8, 11]),
        (7, {"NUM_BLOCKS": 2}, [2, 5]),
        (3, {"NUM_BLOCKS": 3}, [0, 1, 2]),
    ],
)
def test_blocks_are_expanded_where_the_keys_say(depth, keys, behind):
    model = make_model("block", vit=make_vit(depth=depth), **{f"MODEL__BLOCK__{k}": v for k, v in keys.items()})
    assert [site for _, site, _, _ in wires(model.methods)] == [f"blocks.{i}" for i in behind]


@pytest.mark.parametrize(
    ("keys", "says"),
    [({"NUM_BLOCKS": 5}, r"NUM_BLOCKS is 5.*in 12 blocks can be 1, 2, 3, 4, 6, 12"), ({"SPLIT": 13}, "no copy")],
)
def test_expansions_that_are_impossible_are_refused(keys, says):
    with pytest.raises(ValueError, match=says):
        make_model("block", vit=make_vit(depth=12), **{f"MODEL__BLOCK__{key}": value for key, value in keys.items()})


def test_blocks_whose_copies_would_not_be_the_identity_are_refused():
    for kind in (ResPostBlock, ParallelScalingBlock):
        with pytest.raises(ValueError, match=rf"blocks\.2 is a {kind.__name__}: zeros would not make"):
            make_model("block", vit=make_vit(block_fn=kind))


def test_expanded_blocks_train_whole_and_without_the_zoos_dropout():
    vit = create_vit(MODEL_ZOO["vit_micro_glyphs"], (32, 32))
    set_dropout(vit, 0.5, 0.5)
    new = make_model("block", vit=vit.requires_grad_(False)).methods["block"].taps[0]
    assert all(param.requires_grad for param in new.parameters())
    x = torch.randn(2, 65, 64)
    new.attn.proj.weight.data.normal_()
    new.mlp.fc2.weight.data.normal_()
    assert torch.equal(new.train()(x), new(x))
    assert (vit.blocks[3].mlp.drop1.p, vit.blocks[3].drop_path1.drop_prob) == (0.5, 0.5)


def test_expansion_runs_inside_prompts_and_filters(images):
    """Block, new block, then the filter after the last block; the new block sees the prompts."""
    model = make_model("block+prompt", "freqfit", MODEL__PROMPT__NUM_TOKENS=3)
    seen = []
    model.methods["block"].taps[0].register_forward_hook(lambda module, args, y: seen.append((args[0], y)))
    model.methods["freqfit"].taps[-1].register_forward_hook(lambda module, args, y: seen.append((args[0], y)))
    model(images)
    assert seen[0][0].shape[1] == 17 + 3
    assert torch.equal(seen[0][1], seen[1][0])
