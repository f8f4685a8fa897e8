"""Attention maps and FreqFit's filters: the numbers behind the pictures, recomputed; and the tools that draw them."""

import math
import subprocess

import pytest
import timm
import torch
from conftest import make_model, make_vit, randomise
from PIL import Image
from runs import learned
from torch import nn

from src.engine.checkpoint import load_tuned, save_tuned
from src.models.families import tokens_of
from src.models.methods.freqfit import Fourier, SpectralFilter
from src.tools.attention import __main__ as attention
from src.tools.attention.maps import attention_of, maps_of, rollout
from src.tools.filters import __main__ as filters
from src.tools.filters.spectra import by_distance, filters_of, frequencies, power, response, spectra
from src.tools.finished.inputs import spread
from src.utils.io import read_json

NONE = nn.ModuleDict()


def image(size=(32, 32)):
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def call(capsys):
    def call(tool, *args) -> subprocess.CompletedProcess:
        status = tool.main([str(arg) for arg in args])
        return subprocess.CompletedProcess(args, status, *capsys.readouterr())

    return call


# --- attention


def by_hand(vit, x):
    """Each block's attention, mean over heads, from what its qkv gives."""
    seen = []
    hooks = [block.attn.qkv.register_forward_hook(lambda m, a, y: seen.append(y[0])) for block in vit.blocks]
    vit.forward_features(x)
    for hook in hooks:
        hook.remove()
    heads = vit.blocks[0].attn.num_heads
    found = []
    for qkv in seen:
        q, k, _ = qkv.unflatten(-1, (3, heads, -1)).permute(1, 2, 0, 3)
        found.append((q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1).mean(0))
    return found


@torch.no_grad()
def test_attention_and_rollout_are_those_of_the_definition():
    vit = make_vit(img_size=(32, 48), reg_tokens=2)
    x = image((32, 48))
    fused = [block.attn.fused_attn for block in vit.blocks]
    expected = vit(x)
    found, wanted = attention_of(vit, NONE, x), by_hand(vit, x)
    assert [one.name for one in found] == ["blocks.0", "blocks.1", "blocks.2"]
    for one, weights in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.weights, weights, atol=1e-5, rtol=1e-5)
    flow = torch.eye(27)
    for weights in wanted:
        flow = (0.5 * torch.eye(27) + 0.5 * weights) @ flow
    torch.testing.assert_close(rollout(found, tokens_of(vit)), flow, atol=1e-5, rtol=1e-5)
    maps = maps_of(vit, NONE, x)
    torch.testing.assert_close(maps.blocks["blocks.1"], wanted[1][0, 3:].view(4, 6), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps.rollout, flow[0, 3:].view(4, 6), atol=1e-5, rtol=1e-5)
    others = maps.others["blocks.1"]
    assert others == pytest.approx({"class token": wanted[1][0, 0].item(), "registers": wanted[1][0, 1:3].sum().item()})
    assert [block.attn.fused_attn for block in vit.blocks] == fused
    torch.testing.assert_close(vit(x), expected, atol=0, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("deep", [False, True])
def test_prompts_are_no_part_of_the_image(deep):
    model = make_model("prompt", MODEL__PROMPT__DEEP=deep)
    wanted = by_hand(model.vit, image())
    maps = maps_of(model.vit, model.methods, image())
    assert set(maps.others["blocks.2"]) == {"class token", "prompts"}
    assert maps.others["blocks.2"]["prompts"] == pytest.approx(wanted[2][0, 1:6].sum().item(), abs=1e-5)
    flow = torch.cat((torch.eye(17)[:1], torch.zeros(5, 17), torch.eye(17)[1:]))
    for i, weights in enumerate(wanted):
        if deep and i:
            flow[1:6] = 0
        flow = (0.5 * torch.eye(22) + 0.5 * weights) @ flow
    torch.testing.assert_close(maps.rollout.flatten(), flow[0, 1:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_a_pooled_class_token_the_patches_read():
    vit = make_vit(global_pool="avg", class_token=False)
    maps = maps_of(vit, NONE, image())
    assert maps.reader == "patches"
    torch.testing.assert_close(
        maps.blocks["blocks.0"].flatten(), by_hand(vit, image())[0].mean(0), atol=1e-5, rtol=1e-5
    )
    assert maps.rollout.sum().item() == pytest.approx(1, abs=1e-5)


def test_new_blocks_have_their_place():
    model = make_model("block", MODEL__BLOCK__SPLIT=3)
    names = [one.name for one in attention_of(model.vit, model.methods, image())]
    new = [name for name in names if name.startswith("new after ")]
    assert [name for name in names if name not in new] == ["blocks.0", "blocks.1", "blocks.2"]
    assert new
    assert all(names[names.index(name) - 1] == name.removeprefix("new after ") for name in new)


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match="need a ViT"):
        maps_of(timm.create_model("convnext_atto", num_classes=0), NONE, image((64, 64)))


def test_attention_tool_draws_the_images_that_are_named(tmp_path, call):
    run = learned(tmp_path, "MODEL.TRANSFER_TYPE", "prompt+lora", "FREQFIT", "freqfit", "DATA.IMAGE_SIZE", "[32, 48]")
    Image.new("RGB", (60, 40), (250, 120, 0)).save(tmp_path / "a $cat$.jpg")
    done = call(attention, run, tmp_path / "a $cat$.jpg", "--blocks", "1 4", "DEVICE", "cpu")
    assert done.returncode == 0, done.stderr
    said = read_json(run / "attention" / "attention.json")
    (one,) = said["images"]
    assert one["picture"] == "01_a-cat-.png"
    with Image.open(run / "attention" / one["picture"]) as picture:
        assert picture.width > 600
    assert torch.tensor(one["tuned"]["blocks"]["blocks.3"]["patches"]).shape == (8, 12)
    assert "prompts" in one["tuned"]["blocks"]["blocks.3"]
    assert "prompts" not in one["pre-trained"]["blocks"]["blocks.3"]
    for args, status, says in (
        (["--blocks", "5"], 2, "numbers from 1 to 4"),
        (["--count", "0"], 2, "at least 1"),
        ([tmp_path / "none.jpg"], 1, "none.jpg is missing"),
    ):
        done = call(attention, run, *args)
        assert (done.returncode, says in done.stderr) == (status, True), done.stderr


def test_own_images_are_of_different_classes():
    labels = torch.tensor([0, 0, 2, 1, 2, 0]).numpy()
    assert spread(labels, 4) == [0, 3, 2, 1]
    assert sorted(spread(labels, 99)) == list(range(6))


# --- filters


@torch.no_grad()
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("shape", [(5, 4), (4, 7), (11,), (12,)])
def test_a_filter_is_the_convolution_with_its_kernel(shape, real):
    torch.manual_seed(0)
    tap = SpectralFilter(Fourier(2, shape), 3, real)
    tap.filter.normal_()
    found = response("before blocks.0", tap)
    x = torch.randn(2, 2 + math.prod(shape), 3)
    added = (tap(x) - x)[:, 2:].unflatten(1, shape) - tap.shift
    wanted = torch.zeros_like(added)
    for at in torch.ones(shape).nonzero().tolist():  # a circular convolution, term by term
        offset = [i - length // 2 for i, length in zip(at, shape, strict=True)]
        shifted = x[:, 2:].unflatten(1, shape).roll(offset, tuple(range(1, 1 + len(shape))))
        wanted += found.kernel[tuple(at)] * shifted
    torch.testing.assert_close(added, wanted, atol=1e-4, rtol=1e-4)
    # and the power of what comes out, were there no shift, is the power of what goes in times |1 + T|^2
    before = torch.fft.fftshift(torch.fft.fftn(x[0, 2:, :1].view(shape)))
    tap.shift.zero_()
    after = torch.fft.fftshift(torch.fft.fftn(tap(x)[0, 2:, :1].reshape(shape)))
    torch.testing.assert_close(after, before * (1 + found.transfer[..., 0]), atol=1e-3, rtol=1e-3)
    assert found.reach[-1] == pytest.approx(1)


@torch.no_grad()
def test_a_filter_that_does_nothing_has_gain_one():
    model = make_model("linear", "freqfit", MODEL__FREQFIT__INIT="identity")
    found = [response(where, tap) for where, tap in filters_of(model)]
    assert [one.site for one in found] == ["before blocks.0", "before blocks.1", "before blocks.2", "after blocks.2"]
    assert all((one.gain == 1).all() and (one.added == 0).all() and one.reach.isfinite().all() for one in found)
    for one in spectra(model, iter([image(), image()])):
        torch.testing.assert_close(one.before, one.after)


@torch.no_grad()
def test_spectra_are_means_over_images_and_channels():
    model = make_model("prompt", "freqfit", MODEL__FREQFIT__TRANSFORM="2d")
    randomise(model)
    images = torch.randn(5, 3, 32, 32)
    seen = []
    _, tap = filters_of(model)[1]
    hook = tap.register_forward_hook(lambda m, args, y: seen.append(y[:, -16:].view(-1, 4, 4, 32)))
    found = spectra(model, iter(images.split(2)))[1]
    hook.remove()
    wanted = torch.fft.fft2(torch.cat(seen), dim=(1, 2), norm="ortho").abs().square().mean((0, 3))
    torch.testing.assert_close(found.after, torch.fft.fftshift(wanted), atol=1e-4, rtol=1e-4)
    assert power(torch.ones(1, 16, 2), (4, 4))[2, 2] == pytest.approx(16)  # zero is in the middle


def test_rings_of_frequencies_are_in_cycles_per_patch():
    x, y = by_distance(frequencies((8, 8)))
    assert x == pytest.approx(y)
    assert (x[0], max(x)) == (0, pytest.approx(math.sqrt(0.5), abs=0.05))


def test_filters_tool_draws_a_run(tmp_path, call):
    run = learned(tmp_path, "MODEL.TRANSFER_TYPE", "lora", "FREQFIT", "freqfit")
    tuned = load_tuned(run)  # with the digits' own names
    save_tuned(run / "tuned.safetensors", tuned.model, tuned.cfg, [str(i) for i in range(10)], tuned.pixels)
    done = call(filters, run, "--count", "6")
    assert done.returncode == 0, done.stderr
    said = read_json(run / "filters" / "filters.json")
    assert said["images"] == 6
    assert [torch.tensor(one["power_after"]).shape for one in said["filters"]] == [(8, 8)] * 5
    assert {path.name for path in (run / "filters").iterdir()} == {
        "filters.png", "spectra.png", "filters.json", "filters.md",
    }  # fmt: skip
    flat = learned(tmp_path / "flat", "MODEL.TRANSFER_TYPE", "prompt", "FREQFIT", "freqfit_real")
    moved = ["DATA.NAME", "folder", "DATA.DATAPATH", tmp_path / "gone"]
    done = call(filters, flat, "--to", tmp_path / "out", *moved)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"filters.png", "filters.json", "filters.md"}


def test_runs_without_filters_are_refused(tmp_path, call):
    done = call(filters, learned(tmp_path, "MODEL.TRANSFER_TYPE", "lora"))
    assert done.returncode == 1
    assert "has no filters" in done.stderr
