"""Precision, compilation, checkpointed gradients, what a step waits for, and what a run says that it cost."""

import math
from contextlib import nullcontext

import pytest
import timm
import torch
from conftest import make_cfg, make_model, make_vit, randomise
from methods import ALONE, MIXES, build, each, every_method
from runs import QUICK
from torch.utils._python_dispatch import TorchDispatchMode

from src.configs.config import ConfigError, load_cfg
from src.data.loader import on_device
from src.engine import trainer
from src.engine.cost import describe, flops
from src.engine.evaluator import predict
from src.engine.precision import gradient_scaler, resolve_amp
from src.engine.results import RunFolder
from src.engine.run import run
from src.engine.step import TrainingStep, compiled, has_vector_code
from src.engine.what_to_keep import plan_of
from src.models.prefix import frozen_prefix
from src.models.recompute import recompute
from src.solver.losses import build_loss
from src.solver.optimizer import build_optimizer
from src.utils.io import read_json, read_json_lines

CPU = torch.device("cpu")


def make_step(model, **keys) -> TrainingStep:
    cfg = make_cfg(SOLVER__OPTIMIZER="sgd", SOLVER__BASE_LR=0.1, **keys)
    optimizer = build_optimizer(model.named_parameters(), cfg.SOLVER)
    return TrainingStep(cfg, compiled(model, cfg), optimizer, build_loss("softmax", None, 0.0), CPU)


def batch(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 3, 32, 32, generator=generator), torch.arange(count) % 5


def gradients(model) -> dict[str, torch.Tensor]:
    images, labels = batch()
    torch.manual_seed(7)  # dropout
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    return {name: param.grad for name, param in model.named_parameters() if param.requires_grad}


# --- the step


class Waits(TorchDispatchMode):
    """Notes what would make the host wait for a GPU: numbers read from tensors, shapes that depend on values."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (
            torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.masked_select,
            torch.ops.aten.is_nonzero, torch.ops.aten.equal,
        ):  # fmt: skip
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@each([pair for pair in ALONE + MIXES if "boft" not in pair[0]])  # peft's BOFT draws a number on the CPU, and reads it
def test_a_step_never_waits(names, freqfit):
    step = make_step(build(names, freqfit).train(), SOLVER__CLIP_GRAD=1.0)
    images, labels = batch()
    with Waits() as waits:
        step(images, labels)
    assert not waits.seen
    with Waits() as waits:  # the test can fail
        images.sum().item()
    assert waits.seen


@every_method
def test_gradients_of_recomputed_blocks_are_the_same_to_the_bit(names, freqfit):
    plain, kept = (build(names, freqfit).train() for _ in range(2))
    for model in (plain, kept):
        randomise(model)
    recompute(kept.vit, kept.sites, plan_of(kept, "blocks", (32, 32)))
    for (name, one), other in zip(gradients(plain).items(), gradients(kept).values(), strict=True):
        assert torch.equal(one, other), name


def test_compiled_steps_train_as_eager_ones():
    """In one graph, for two sizes of batches, in training and evaluation."""
    torch._dynamo.reset()
    losses = []
    for on in (False, True):
        step = make_step(make_model("lora+prompt", "freqfit", vit=make_vit(depth=1)).train())
        network = step.network
        if on:
            network = step.network = torch.compile(network, fullgraph=True, dynamic=False, backend="aot_eager")
        seen = [step(*batch(count)).item() for count in (4, 4, 3)]
        network.eval()
        with torch.inference_mode():
            seen.append(network(batch()[0]).sum().item())
        losses.append(seen)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("names", ["linear", "vqt", "partial-1", "block", "side"])
def test_what_is_behind_a_frozen_prefix_compiles_into_one_graph(names):
    torch._dynamo.reset()
    images, _ = batch()
    prefix = frozen_prefix(make_model(names), images)
    records = prefix(images)
    whole = torch.compile(prefix.suffix, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(records), prefix.suffix(records), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_run_compiled_by_inductor_comes_out_alike(tmp_path):
    """The real compiler, through the door: it needs a C++ compiler, as on a user's machine. Behind a frozen prefix, or
    it would take minutes."""
    pairs = [*QUICK, "DATA.TRAIN_SPLIT", "train", "DATA.NO_TEST", "True", "DATA.EVAL_BATCH_SIZE", "40"]
    pairs += ["DATA.BATCH_SIZE", "40"]  # each other size would be compiled too
    if not has_vector_code():  # what torch's compiler writes there, g++ refuses
        with pytest.raises(ValueError, match="vector instructions"):
            run(load_cfg("", [*pairs, "MODEL.COMPILE", "True"]), RunFolder(tmp_path / "refused"))
        return
    eager = run(load_cfg("", pairs), RunFolder(tmp_path / "eager"))
    fast = run(load_cfg("", [*pairs, "MODEL.COMPILE", "True"]), RunFolder(tmp_path / "compiled"))
    assert fast["train_loss"] == pytest.approx(eager["train_loss"], rel=1e-4)
    assert fast["val"]["images"] == 200
    assert fast["val"]["top1"] == pytest.approx(eager["val"]["top1"], abs=0.006)


def test_a_machine_without_a_compiler_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(ValueError, match=r"MODEL\.COMPILE needs a C\+\+ compiler"):
        run(load_cfg("", [*QUICK, "MODEL.COMPILE", "True"]), RunFolder(tmp_path / "run"))


# --- precision


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision_trains(tmp_path, amp):
    pairs = ["MODEL.TRANSFER_TYPE", "lora", "FREQFIT", "freqfit", "DATA.TRAIN_SPLIT", "train", "DATA.NO_TEST", "True"]
    result = run(load_cfg("", [*QUICK, *pairs, "SOLVER.AMP", amp, "SOLVER.EVAL_EVERY", "0"]), RunFolder(tmp_path))
    assert result["precision"] == amp
    assert result["val"]["top1"] > 0.3
    rows = read_json_lines(tmp_path / "metrics.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_float16_gradients_are_scaled_and_overflow_skips_a_step():
    model = make_model("linear").train()
    step = make_step(model, SOLVER__AMP="fp16", SOLVER__CLIP_GRAD=1.0)
    assert step.scaler.is_enabled()
    assert not gradient_scaler(make_cfg(SOLVER__AMP="bf16"), CPU).is_enabled()
    before = model.head.last_layer.weight.clone()
    scale = step.scaler.get_scale()
    step.loss_of = lambda logits, targets: logits.sum() * 1e35
    step(*batch())
    assert torch.equal(model.head.last_layer.weight, before)
    assert step.scaler.get_scale() == scale / 2
    step.loss_of = build_loss("softmax", None, 0.0)
    step(*batch())
    assert not torch.equal(model.head.last_layer.weight, before)


def test_auto_is_what_the_device_is_good_at(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert resolve_amp("auto", CPU) == "off"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert resolve_amp("auto", CPU) == "bf16"
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    assert (resolve_amp("auto", gpu), resolve_amp("off", gpu)) == ("fp16", "off")
    with pytest.raises(ValueError, match="Tesla V100 has no bfloat16; use fp16, or auto"):
        resolve_amp("bf16", gpu)


# --- the same again


def test_a_run_repeats_itself_to_the_bit(tmp_path):
    """Whatever the threads that decode, and with DETERMINISTIC, which refuses operations that would not."""
    settings = [*QUICK, "MODEL.TRANSFER_TYPE", "prompt+lora", "FREQFIT", "freqfit", "MODEL.PROMPT.DROPOUT", "0.3"]
    settings += ["DATA.AUGMENT", "rrc_flip", "DATA.AUTO_AUGMENT", "randaugment", "DATA.NO_TEST", "True"]
    settings += ["DATA.TRAIN_SPLIT", "train", "SOLVER.TOTAL_EPOCH", "2"]
    files = []
    for name, more in (
        ("a", ["DATA.NUM_WORKERS", "1"]),
        ("b", ["DATA.NUM_WORKERS", "5", "DATA.CACHE", "off"]),
        ("c", ["DETERMINISTIC", "True"]),
    ):
        run(load_cfg("", [*settings, *more]), RunFolder(tmp_path / name))
        assert torch.are_deterministic_algorithms_enabled() == (name == "c")
        files.append((tmp_path / name / "tuned.safetensors").read_bytes())
    torch.use_deterministic_algorithms(False)
    start = [int.from_bytes(content[:8], "little") + 8 for content in files]  # behind the header, which has the config
    assert files[0][start[0] :] == files[1][start[1] :] == files[2][start[2] :]


# --- evaluation


class Batches:
    """Images and labels as a loader gives them."""

    def __init__(self, count: int, batch_size: int):
        self.images, self.labels, self.batch_size = torch.randn(count, 3, 32, 32), torch.arange(count) % 5, batch_size

    def in_order(self, part=(0, 1)):
        yield from zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True)


def test_padded_evaluation_sees_one_size_and_counts_every_image_once():
    model, loader, sizes = make_model("lora"), Batches(11, 4), []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    context = torch.autocast("cpu", enabled=False)
    plain, padded = (predict(model, loader, context, padded=padded) for padded in (False, True))
    assert sizes == [4, 4, 3, 4, 4, 4]
    assert torch.equal(padded[1], loader.labels)
    torch.testing.assert_close(padded[0], plain[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("every", "epochs"), [("1", [1, 2, 3, 4, 5]), ("2", [2, 4, 5]), ("0", [5])])
def test_validation_is_measured_as_often_as_asked(tmp_path, every, epochs):
    pairs = ["DATA.TRAIN_SPLIT", "train", "DATA.NO_TEST", "True", "SOLVER.TOTAL_EPOCH", "5", "SOLVER.EVAL_EVERY", every]
    result = run(load_cfg("", [*QUICK, *pairs]), RunFolder(tmp_path))
    rows = read_json_lines(tmp_path / "metrics.jsonl")
    assert [row["epoch"] for row in rows if "val_top1" in row] == epochs
    assert result["val"]["top1"] == rows[-1]["val_top1"]


def test_early_stopping_needs_validation():
    with pytest.raises(ConfigError, match=r"EVAL_EVERY is 5, but stopping after 2 epochs"):
        load_cfg("", [*QUICK, "SOLVER.PATIENCE", "2", "SOLVER.EVAL_EVERY", "5"])


# --- the card


@pytest.mark.parametrize(
    ("name", "published"), [("vit_base_patch16_224", 17.6e9), ("swin_tiny_patch4_window7_224", 4.5e9)]
)
def test_flops_are_those_of_the_papers(name, published):
    """Multiply-adds, which the papers of DeiT, Swin and ConvNeXt call FLOPs."""
    vit = timm.create_model(name, num_classes=0)
    assert flops(make_model("linear", vit=vit), (224, 224)) == pytest.approx(published, rel=0.02)


@each([*ALONE, ("lora", "freqfit")])
def test_flops_of_every_method_are_counted(names, freqfit):
    plain, model = flops(make_model("linear"), (32, 32)), build(names, freqfit).train()
    assert flops(model, (32, 32)) >= plain
    assert model.training


def test_freqfits_arithmetic_is_counted():
    """Two products of 32 frequencies' parts (8 of them with the class token's column of zeros) with D channels."""
    more = flops(make_model("linear", "freqfit"), (32, 32)) - flops(make_model("linear"), (32, 32))
    tokens, frequencies, dim, filters = 17, 4 * 3, 32, 4
    assert more == filters * dim * tokens * (2 * frequencies + 2 * frequencies + 1)


def test_the_card_says_what_a_run_cost(tmp_path, caplog):
    cfg = load_cfg("", [*QUICK, "DATA.CROPSIZE", "32", "MODEL.TRANSFER_TYPE", "lora"])
    with caplog.at_level("INFO"):
        run(cfg, RunFolder(tmp_path))
    cost = read_json(tmp_path / "result.json")["cost"]
    assert cost["parameters"] == {"with_head": 36864 + 650, "without_head": 36864}
    assert cost["flops_per_image"] > 0.01e9
    assert cost["learned_bytes"] == 4 * (36864 + 650)
    assert all(rate > 0 for rate in cost["images_per_second"].values())
    assert 2**26 < cost["peak_memory_bytes"] < 2**36
    assert {"read", "features", "first_step", "train", "test", "save"} <= cost["seconds"].keys()
    assert 0 < cost["seconds"]["first_step"] <= cost["seconds"]["train"]
    said = [record.getMessage() for record in caplog.records]
    assert describe(cost) in said
    assert "36,864 trained parameters, 37,514 with the head" in describe(cost)


def test_a_model_that_cannot_be_traced_is_no_reason_to_lose_a_run(caplog):
    class Odd(torch.nn.Linear):
        def forward(self, images):
            raise RuntimeError("no")

    assert flops(Odd(1, 1), (4, 4)) is None
    assert "FLOPs are not counted: no" in caplog.text


def test_on_a_cpu_batches_just_come():
    batches = [torch.full((2,), i) for i in range(3)]
    assert [batch[0].item() for batch in on_device(iter(batches), CPU)] == [0, 1, 2]


def test_losses_of_an_epoch_are_weighed_by_images(tmp_path, monkeypatch):
    """80 images in batches of 32, 32 and 16."""
    numbers = iter([1.0, 2.0, 6.0])
    monkeypatch.setattr(trainer.TrainingStep, "__call__", lambda self, *batch: torch.tensor(next(numbers)))
    pairs = ["DATA.TRAIN_SPLIT", "train", "SOLVER.TOTAL_EPOCH", "1", "SOLVER.WARMUP_EPOCH", "0"]
    result = run(load_cfg("", [*QUICK, *pairs]), RunFolder(tmp_path))
    assert math.isclose(result["train_loss"], (32 * 1 + 32 * 2 + 16 * 6) / 80)
