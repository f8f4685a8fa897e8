"""Recomputation: gradients are the same to the bit, and less is kept."""

import copy

import pytest
import timm
import torch
from conftest import make_cfg, make_model, make_vit, randomise
from runs import QUICK, same_result

from src.api import tune
from src.configs.config import load_cfg
from src.engine.memory import Live, activation_bytes, shadow_of
from src.engine.results import RunFolder
from src.engine.run import run
from src.engine.step import compiled
from src.engine.what_to_keep import plan_of
from src.models.recompute import planned, recompute
from src.models.sites import blocks

SIZE = (32, 32)


def gradients(model, network=None, autocast=None, size=SIZE) -> dict:
    torch.manual_seed(7)
    given = torch.randn(3, 3, *size)
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        out = (model if network is None else network)(given)
    out.float().square().sum().backward()
    found = {name: param.grad for name, param in model.named_parameters() if param.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def with_plan(model, level: str):
    recompute(model.vit, model.sites, plan_of(model, level, SIZE, images=3))
    return model


def keeping_two_maps(model):
    """With a plan as for LoRA: attn.qkv and mlp.fc1 of every block."""
    kept = frozenset({("addmm", 32, 96), ("addmm", 32, 128)})
    recompute(model.vit, model.sites, dict.fromkeys(blocks(model.vit), kept))
    return model


@pytest.mark.parametrize(
    ("names", "freqfit", "autocast"),
    [
        *[("end2end", "", None), ("lora", "freqfit", torch.bfloat16), ("ssf+adaptformer", "", None)],
        *[("rlrr", "", torch.bfloat16), ("vqt+prompt+lora", "ssf", None), ("fact_tt+convpass", "", torch.bfloat16)],
    ],
)
def test_gradients_are_the_same_to_the_bit(names, freqfit, autocast):
    """With dropout and drop-path, which leave out the same again; from a copy of the model too."""
    model = make_model(names, freqfit, vit=make_vit(depth=2, drop_path_rate=0.5), MODEL__LORA__DROPOUT=0.2)
    randomise(model)
    model.train()
    expected = gradients(model, autocast=autocast)
    keeping_two_maps(model)
    for one in (model, copy.deepcopy(model)):
        found = gradients(one, autocast=autocast)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("names", "freqfit"), [("lora", "freqfit"), ("adaptformer+vqt", "")])
def test_a_compiled_network_recomputes_too(names, freqfit):
    torch._dynamo.reset()
    model = make_model(names, freqfit, vit=make_vit(depth=1))
    randomise(model)
    expected = gradients(model)
    keeping_two_maps(model)
    compiled(model, make_cfg(MODEL__COMPILE=True))  # as training does; it compiles when it is first called
    found = gradients(model, torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_less_is_kept_and_a_plan_can_be_taken_back():
    model = make_model("lora", "freqfit", vit=make_vit(depth=2))
    full = activation_bytes(make_model("end2end", vit=make_vit(depth=2)), SIZE)
    kept = {level: activation_bytes(with_plan(model, level), SIZE) for level in ("off", "auto", "blocks")}
    assert kept["off"].per_image > full.per_image > 1.8 * kept["auto"].per_image > 1.8 * kept["blocks"].per_image
    assert activation_bytes(with_plan(model, "off"), SIZE) == kept["off"]
    assert not any("forward" in vars(module) for module in model.vit.modules())


def test_nothing_is_left_over_after_a_step():
    """Of what is computed again, nothing outlives the backward pass."""
    shadow, mode = shadow_of(with_plan(make_model("adaptformer+vqt", "freqfit"), "blocks"), "cpu")
    with mode, Live(shadow) as live:
        shadow(torch.empty(2, 3, *SIZE)).sum().backward()
        left = live.bytes - sum(p.grad.nbytes for p in shadow.parameters() if p.grad is not None)
    assert left < 2 * 3 * 32 * 32 * 4 * 2


def test_what_is_changed_in_place_is_not_kept():
    """EVA-02 adds the bias of q, k and v to what the map returned; of a kept result torch would use the sum instead."""
    tiny = dict(img_size=56, depth=1, embed_dim=48, num_heads=2, num_classes=0)
    torch.manual_seed(1)
    model = make_model("end2end", vit=timm.create_model("eva02_tiny_patch14_224", **tiny))
    randomise(model)
    expected = gradients(model, size=(56, 56))
    plan = plan_of(model, "auto", (56, 56), images=3)
    assert ("addmm", 48, 48) in plan["blocks.0"]
    assert ("mm", 48, 144) not in plan["blocks.0"]
    recompute(model.vit, model.sites, plan)
    found = gradients(model, size=(56, 56))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    recompute(model.vit, model.sites, {"blocks.0": plan["blocks.0"] | {("mm", 48, 144)}})
    found = gradients(model, size=(56, 56))
    assert not torch.equal(found["vit.blocks.0.attn.q_bias"], expected["vit.blocks.0.attn.q_bias"])


def test_batch_norms_that_train_are_not_computed_twice():
    small = dict(layers=(1, 1, 1, 1), channels=(8, 8, 16, 16), stem_width=8, num_classes=0)
    for names, count in (("end2end", 0), ("tinytl-bias", 4)):
        model = make_model(names, vit=timm.create_model("resnet18", **small))
        assert len(plan_of(model, "blocks", SIZE)) == count


def test_a_wide_block_keeps_half_of_what_full_fine_tuning_does():
    """On shapes of ViT-B/16 alone: no numbers are there."""
    kept, names = {}, "lora"
    for name in ("end2end", names):
        with torch.device("meta"):
            vit = timm.create_model("vit_base_patch16_224", depth=2, num_classes=0)
            model = make_model(name, vit=vit)
        kept[name, "off"] = activation_bytes(model, (224, 224)).per_image
    recompute(model.vit, model.sites, plan_of(model, "auto", (224, 224)))
    kept[names, "auto"] = activation_bytes(model, (224, 224)).per_image
    assert kept[names, "off"] > 0.95 * kept["end2end", "off"]
    assert kept[names, "auto"] < 0.55 * kept["end2end", "off"]


def test_code_can_ask_for_it():
    model = tune(make_vit(), "lora", num_classes=5, recompute="blocks")
    assert set(planned(model.vit)) == {"blocks.0", "blocks.1", "blocks.2"}
    assert not planned(tune(make_vit(), "lora", num_classes=5).vit)
    unknown = timm.create_model("vit_relpos_small_patch16_224", img_size=64, depth=1, embed_dim=32, num_heads=2)
    with pytest.raises(ValueError, match="its blocks are not known"):
        tune(unknown, "lora", num_classes=5, recompute="auto")


RUN = [
    *QUICK, "MODEL.LORA.DROPOUT", "0.2", "SOLVER.ACCUMULATE", "2", "DATA.TRAIN_SPLIT", "train",
    "SOLVER.TOTAL_EPOCH", "2",
]  # fmt: skip


@pytest.mark.parametrize("methods", ["lora", "partial-2"])  # partial: after a frozen prefix, whose activations are kept
def test_a_run_with_recomputation_ends_as_one_without(tmp_path, methods):
    folders = []
    for level in ("off", "auto"):
        cfg = load_cfg("", [*RUN, "MODEL.TRANSFER_TYPE", methods, "MODEL.RECOMPUTE", level])
        folders.append(tmp_path / level)
        run(cfg, RunFolder(tmp_path / level))
    same_result(*folders)
