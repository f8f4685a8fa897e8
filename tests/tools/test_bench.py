"""Benchmarks run and write their tables; how fast things are is no test."""

import argparse
import copy
import os
import sys
import zipfile
from dataclasses import asdict
from functools import partial

import pytest
import timm
import torch

from src.api import tune
from src.configs.config import load_cfg
from src.engine.cost import flops
from src.tools.bench import __main__ as bench
from src.tools.bench import data, packages, step
from src.tools.bench.common import random_vit
from src.tools.bench.freqfit import crossover
from src.tools.bench.gpu.driver import report
from src.tools.bench.gpu.finding import FAILED, OK, SHORT, Finding, Room
from src.tools.bench.gpu.parts.memory import predicted
from src.tools.bench.gpu.process import Running
from src.tools.bench.tuners import ARGUMENTS, wrapped
from src.utils.io import read_json

MICRO = ["--backbone", "vit_micro_glyphs", "--batch", "4", "--rounds", "1", "DATA.CROPSIZE", "32"]


@pytest.fixture
def measure(tmp_path, capsys):
    """The command line: what its JSON file says, after a look at what it printed and wrote."""

    def call(what: str, *options: str) -> dict:
        assert bench.main([what, "--out", str(tmp_path), *options]) == 0
        printed = capsys.readouterr().out
        files = [tmp_path / f"{what}{suffix}" for suffix in (".md", ".json", ".png")]
        assert printed.strip().splitlines()[-1] == "result: " + ", ".join(map(str, files))
        assert files[0].read_text() in printed
        assert files[2].read_bytes().startswith(b"\x89PNG")
        found = read_json(files[1])
        assert found["environment"]["packages"]["torch"]
        return found

    return call


def test_bench_data_writes_its_table(measure, tmp_path):
    rates = measure("data", "--images", "5", "--rounds", "1")["images_per_second"]
    assert set(data.TARGETS) < set(rates)
    assert all(rate > 0 for rate in rates.values())
    assert all(f"| {name} |" in (tmp_path / "data.md").read_text() for name in rates)


def test_bench_step_compares_with_peft(measure, quick_compiler):
    found = measure("step", *MICRO)
    rows = found["contenders"]
    assert rows.keys() == step.CONTENDERS.keys()
    assert all(row["times_as_fast"] > 0 and row["of_matrix_peak"] > 0 for row in rows.values())
    assert rows[step.PEFT]["times_as_fast"] == rows[step.PEFT_FREQFIT]["times_as_fast"] == 1
    assert rows["ours, LoRA, bf16"]["reference"] == step.PEFT
    lora, head, filters = 4 * 8 * (64 + 192), 65 * step.CLASSES, 5 * (8 * 5 * 64 * 2 + 128)
    for name, row in rows.items():
        has_filters = "FFT" in name or "FreqFit" in name
        assert row["trained_parameters"] == lora + head + has_filters * filters
        assert 2 * row["forward_multiply_adds"] < row["step_operations"] < 6 * row["forward_multiply_adds"]
    assert found["matrix_peak_flop_per_second"].keys() == {"fp32", "bf16"}


def test_bench_memory_counts_and_times_every_level(measure):
    found = measure("memory", *MICRO[:6], "--methods", "ssf", "--", *MICRO[6:])
    rows = found["methods"]
    assert list(rows) == ["end2end", "ssf"]
    for row in rows.values():
        kept = row["bytes_an_image"]
        assert kept["off"] > 1.5 * kept["auto"] > 1.5 * kept["blocks"] > 0
        assert all(timing["times_as_fast"] > 0 for timing in row["seconds"].values())
    assert rows["ssf"]["bytes_an_image"]["off"] > rows["end2end"]["bytes_an_image"]["off"]


def test_bench_peft_compares_the_same_tuners(measure):
    found = measure("peft", *MICRO[:6], "--tuners", "lora", "IA3", "--", *MICRO[6:])
    rows = found["contenders"]
    assert list(rows) == ["LORA, MODEL.PEFT", "LORA, our lora", "IA3, MODEL.PEFT"]
    assert all(row["times_as_fast"] > 0 and row["reference"].endswith("peft alone") for row in rows.values())
    with pytest.raises(SystemExit):
        bench.main(["peft", "--tuners"])


@pytest.mark.parametrize("kind", ["LORA", "VERA", "LOKR"])
def test_both_sides_of_bench_peft_train_as_much(kind):
    cfg = load_cfg("", ["DATA.NAME", "digits", "DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "32"])
    model = wrapped(kind, random_vit(cfg, 100))
    alone = sum(p.numel() for p in model.parameters() if p.requires_grad)
    arguments = copy.deepcopy(ARGUMENTS[kind])
    ours = tune(random_vit(cfg), "peft", 100, peft={"type": kind, "targets": ["attn.qkv"], "kwargs": arguments})
    assert alone == sum(p.numel() for p in ours.parameters() if p.requires_grad)


def test_the_filter_in_hooks_computes_what_ours_does(images):
    """Else the comparison would be with something else: same weights, same logits."""
    pairs = ["DATA.NAME", "digits", "DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "32", *step.DEFAULTS]
    cfg = load_cfg("", pairs)
    ours, hooked = (step.build(kind, cfg).eval() for kind in (step.OURS, "peft LoRA + FFT hooks"))
    base = hooked.base_model.model
    for name, param in ours.vit.named_parameters():
        base.get_parameter(name.replace("attn.qkv", "attn.qkv.base_layer")).data.copy_(param)
    for (_, mine), theirs in zip(sorted(filters(ours)), base.filters, strict=True):
        theirs.load_state_dict(mine.state_dict())
    base.head.modules_to_save["default"].load_state_dict(ours.head.last_layer.state_dict())
    torch.testing.assert_close(hooked(images), ours(images), atol=1e-4, rtol=1e-4)


def filters(model) -> list[tuple[str, torch.nn.Module]]:
    return [(name, tap) for name, tap in model.named_modules() if type(tap).__name__ == "SpectralFilter"]


@pytest.fixture
def quick_compiler(monkeypatch):
    """torch.compile without the minutes that Inductor takes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


def test_bench_eval_compares_with_a_plain_loop(measure, quick_compiler):
    rows = measure("eval", *MICRO)["contenders"]
    assert set(rows) == {
        *("plain loop over timm, fp32", "ours, fp32", "ours, fp32, compiled"),
        *("plain loop over timm, bf16", "ours, bf16", "ours, bf16, compiled"),
    }
    assert all(row["reference"].endswith(name[-4:]) for name, row in rows.items() if "compiled" not in name)
    assert all(row["times_as_fast"] > 0 for row in rows.values())
    assert rows["ours, fp32, compiled"]["compile_seconds"] > 0


def test_bench_freqfit_is_exact_in_either_form(measure):
    found = measure("freqfit", "--dim", "16", "--batch", "2", "--rounds", "1", "--largest", "256")
    assert [row["tokens"] for row in found["rows"]] == [n for n in (49, 64, 196, 256, 196, 247) for _ in range(2)]
    assert found["crossover"].keys() == {"fp32", "bf16"}
    for row in found["rows"]:
        assert row["fft_over_matrices"] > 0
        bound = 1e-5 if row["precision"] == "fp32" else 0.03
        for errors in row["errors"].values():
            assert {"output", "gradient of tokens", "gradient of filter"} < errors.keys()
            assert all(0 < error["relative"] < bound for error in errors.values())


def test_the_crossover_is_between_the_sizes_around_it():
    def rows(*ratios: float) -> list[dict]:
        sizes = zip((7, 14, 28), ratios, strict=True)
        return [{"precision": "fp32", "shape": [s, s], "tokens": s * s, "fft_over_matrices": r} for s, r in sizes]

    assert crossover(rows(2, 2, 0.5), "fp32") == pytest.approx(14 * 28)
    assert crossover(rows(3, 2, 1.5), "fp32") is None
    assert crossover(rows(0.9, 0.8, 0.7), "fp32") == 49
    assert crossover(rows(2, 0.5, 2), "fp32") == pytest.approx(7 * 14)


def test_bench_linear_compares_with_one_pass(measure):
    found = measure("linear", *MICRO, "--images", "40", "--epochs", "3")
    assert found["ratio"] > 0
    assert found["contenders"].keys() == {"one pass of the backbone", "3 epochs of linear probing", "3 more"}


def test_work_is_counted_as_published():
    """17.6 G multiply-adds for ViT-B/16 (timm's own table); a step with frozen weights is about twice a forward."""
    vit = timm.create_model("vit_base_patch16_224", num_classes=100)
    image = torch.randn(1, 3, 224, 224)
    forward = flops(vit, (224, 224))
    assert 16.9e9 < forward < 17.7e9
    for param in vit.parameters():
        param.requires_grad = False
    vit.blocks[0].norm1.weight.requires_grad = True
    assert step.step_operations(vit, image, torch.tensor([1])) == pytest.approx(2 * 2 * forward, rel=0.03)


def test_user_errors_end_with_one_clear_line(tmp_path, capsys):
    for options, says, status in (
        (["--backbone", "timm:vit_nothing"], "no network of this name", 2),
        (["--device", "mps"], "not supported", 1),
        (["SOLVER.OPTIMISER", "sgd"], "SOLVER.OPTIMIZER", 2),
    ):
        assert bench.main(["step", "--out", str(tmp_path), *options]) == status
        assert says in capsys.readouterr().err


@pytest.mark.parametrize("what", list(bench.BENCHMARKS))
def test_every_benchmark_explains_itself(what, capsys):
    with pytest.raises(SystemExit) as stop:
        bench.main([what, "--help"])
    assert stop.value.code == 0
    assert f"vitune bench {what}" in capsys.readouterr().out


def test_bench_gpu_goes_on_whatever_fails(tmp_path, capsys):
    """The whole flow on a CPU: what can be tried there passes, the rest is left out with its reason."""
    parts = ("smoke", "out_of_memory", "epochs", "memory", "data")
    options = ["--device", "cpu", "--tiny", "--batch", "4", "--parts", ",".join(parts), "--out", str(tmp_path)]
    assert bench.main(["gpu", *options]) == 0
    assert (tmp_path / "gpu.md").read_text() in capsys.readouterr().out
    found = {
        name: {row["what"]: row for row in part["findings"]}
        for name, part in read_json(tmp_path / "gpu.json")["parts"].items()
    }
    assert tuple(found) == parts
    assert found["smoke"]["against the CPU, float32"]["mark"] == OK
    assert found["smoke"]["losses in bf16"]["mark"] == OK
    assert found["epochs"]["linear, on kept features"]["values"]["hundred_epochs_s"] > 0
    assert found["data"]["photos, crop and flip"]["values"]["share"] > 0
    assert all(list(found[name]) == ["left out"] for name in ("out_of_memory", "memory"))


@pytest.mark.parametrize(
    ("part", "seconds", "says"),
    [("nothing", 60, "ModuleNotFoundError"), ("smoke", 0, "ended after 0 s, its limit")],
)
def test_a_part_that_breaks_or_takes_too_long_fails_alone(part, seconds, says, tmp_path):
    room = {"device": "cpu", "tiny": True, "backbone": "", "batch": 2}
    found = Running(part, room, tmp_path / "part", seconds).finish()
    (last,) = found["findings"]
    assert last["mark"] == FAILED
    assert says in last["text"]


def test_a_failure_makes_the_command_fail_and_slowness_does_not(tmp_path):
    args = argparse.Namespace(out=tmp_path, tiny=False)
    for mark in (OK, SHORT, FAILED):
        found = {"smoke": {"seconds": 1.0, "findings": [asdict(Finding("it", "a | b", mark))]}}
        whole = report(found, 1.0, args)
        assert f"| smoke | it | a / b | {mark} |" in whole.text
        assert whole.failed == (mark == FAILED)


def test_missing_packages_are_named_before_anything_starts(monkeypatch, tmp_path):
    monkeypatch.setitem(packages.NEEDED, "not_installed", "not-installed")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(ValueError, match="pip install not-installed; without a network"):
        packages.use(tmp_path)
    with zipfile.ZipFile(tmp_path / "not_installed-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("not_installed.py", "")
    packages.use(tmp_path)
    assert str(tmp_path / "not_installed-1.0-py3-none-any.whl") in os.environ["PYTHONPATH"]


def test_the_memory_of_a_step_is_predicted_beside_what_is_measured(tmp_path):
    """The rest of that part needs a GPU: a step's tensors take more than the weights, and more with every image."""
    few, many = (
        predicted(Room("cpu", True, "vit_micro_glyphs", images, tmp_path, 0.0), "lora", "freqfit", "off")
        for images in (4, 8)
    )
    assert few < many < 2 * few
