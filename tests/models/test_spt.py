"""SPT: the allocation's rules and files, the sparse update, a task's sensitivities, and runs that do both stages."""

import dataclasses

import pytest
import torch
from conftest import make_allocation, make_cfg, make_model, make_vit, randomise
from runs import QUICK, quick
from torch.nn import functional as F

from src.data.opened import open_data
from src.engine.checkpoint import load_tuned
from src.engine.run import evaluate_run, run
from src.engine.sensitivity import estimate, first_images, make_allocations, report, squared_gradients
from src.models.allocation import Allocation, Rules, allocate, pieces, unit_of
from src.models.methods.sparse import SparseUpdate
from src.models.vit_models import METHODS, build_model
from src.tools.sensitivity import __main__ as sensitivity
from src.utils.io import read_json

RULES = Rules("lora", 2, alpha=10.0, beta=5.0, structured_vector=True, structured_only=False, always=32)


def random_sensitivity(vit):
    generator = torch.Generator().manual_seed(0)
    return {n: torch.rand(p.shape, generator=generator) ** 8 for n, p in pieces(vit).items()}


# --- allocation


def test_pieces_are_all_weights_between_the_patches_and_the_head():
    vit = make_vit()
    own = [p.numel() for n, p in vit.named_parameters() if not n.startswith(("patch_embed", "pos_embed", "cls_token"))]
    assert sum(piece.numel for piece in pieces(vit).values()) == sum(own)
    qkv = vit.blocks[1].attn.qkv
    for third, part in zip("qkv", qkv.weight.chunk(3), strict=True):
        assert torch.equal(pieces(vit)[f"blocks.1.attn.{third}.weight"].of(qkv.weight), part)


def test_a_budget_is_spent_by_the_rules():
    vit = make_vit()
    sensitivity = random_sensitivity(vit)
    allocation = allocate(vit, sensitivity, RULES, 3000.0)
    about, known, chosen = allocation.about, pieces(vit), set(allocation.names(vit))
    flat = torch.cat([s.flatten() for s in sensitivity.values()])
    least = flat.sort(descending=True).values[about["tau"] - 1]
    masked = 0
    for name, piece in known.items():
        count = int((sensitivity[name] >= least).sum())
        assert count == about["sensitive"][name]
        cost = sum(piece.shape) * 2 if len(piece.shape) == 2 else piece.numel
        enough = count >= (cost / 10 if len(piece.shape) == 2 else cost / 5)
        assert (name in chosen) == enough
        masked += 0 if enough else count
    assert about["masked"] == masked == len(allocation.masked)
    assert about["total"] == masked + about["structured"] + 32
    assert abs(about["total"] - 3000) < 300


def test_masks_lead_back_to_the_most_sensitive_entries():
    vit = make_vit()
    sensitivity = random_sensitivity(vit)
    allocation = allocate(vit, sensitivity, RULES, 3000.0)
    values = torch.cat([sensitivity[name].flatten()[index] for name, index in allocation.masks(vit).items()])
    flat = torch.cat([s.flatten() for s in sensitivity.values()])
    assert values.min() >= flat.sort(descending=True).values[allocation.about["tau"] - 1]
    assert len(values) == len(allocation.masked)


def test_structured_only_masks_nothing_and_vectors_may_be_left_out():
    vit = make_vit()
    only = allocate(vit, random_sensitivity(vit), dataclasses.replace(RULES, structured_only=True), 3000.0)
    assert len(only.masked) == 0
    matrices = allocate(vit, random_sensitivity(vit), dataclasses.replace(RULES, structured_vector=False), 3000.0)
    assert all(len(pieces(vit)[name].shape) == 2 for name in matrices.names(vit))


def test_any_budget_has_steps_that_suit_it():
    assert unit_of(0.05e6) == unit_of(1e6) == 1e6
    assert unit_of(500.0) == 500.0
    assert unit_of(3e6) == 3e6
    vit = make_vit()
    for budget in (300.0, 1000.0, 4000.0):
        total = allocate(vit, random_sensitivity(vit), RULES, budget).about["total"]
        assert abs(total - budget) < 0.25 * budget
    everything = allocate(vit, random_sensitivity(vit), RULES, 1e6)  # more than there is
    assert len(everything.structured) == len(pieces(vit))
    with pytest.raises(ValueError, match="larger BUDGET"):
        allocate(vit, random_sensitivity(vit), RULES, 10.0)  # the class token alone costs more


def test_files_come_back_and_broken_or_foreign_ones_are_named(tmp_path):
    vit = make_vit()
    allocation = allocate(vit, random_sensitivity(vit), RULES, 3000.0)
    allocation.save(tmp_path / "a.safetensors")
    again = Allocation.load(tmp_path / "a.safetensors")
    assert torch.equal(again.masked, allocation.masked)
    assert again.about == allocation.about
    with pytest.raises(FileNotFoundError, match="vitune sensitivity"):
        Allocation.load(tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="broken"):
        Allocation.load(tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="another backbone"):
        again.check(make_vit(depth=2))
    with pytest.raises(ValueError, match="needs an allocation"):
        METHODS["spt_lora"](make_cfg().MODEL.SPT_LORA, vit, None)


# --- the sparse update


def sparse_update(entries=40, biases=5, inputs=12, outputs=20):
    torch.manual_seed(0)
    linear = torch.nn.Linear(inputs, outputs).requires_grad_(False)
    index = torch.randperm(inputs * outputs)[:entries].sort().values
    update = SparseUpdate(linear, index, torch.randperm(outputs)[:biases].sort().values)
    for param in update.parameters():
        param.data.normal_()
    return linear, update


@pytest.mark.parametrize(("entries", "biases"), [(40, 5), (1, 0), (0, 3), (240, 20)])
def test_sparse_update_is_the_dense_one(entries, biases):
    linear, update = sparse_update(entries, biases)
    x = torch.randn(3, 7, 12, requires_grad=True)
    weight, bias = linear.weight.flatten().clone(), linear.bias.clone()
    dense = [p.detach().clone().requires_grad_() for p in update.parameters()]
    left = list(dense)
    if entries:
        weight = weight.index_add(0, update.index, left.pop(0))
    if biases:
        bias = bias.index_add(0, update.bias_index, left.pop(0))
    expected = F.linear(x, weight.view(20, 12), bias)
    torch.testing.assert_close(update(x), expected)
    cotangent = torch.randn_like(expected)
    want = torch.autograd.grad(expected, [x, *dense], cotangent)
    got = torch.autograd.grad(update(x), [x, *update.parameters()], cotangent)
    torch.testing.assert_close(got, want)


def test_sparse_update_keeps_nothing_of_the_weights_size():
    def kept(entries):
        linear, update = sparse_update(entries, 0, inputs=200, outputs=300)
        own = {t.data_ptr() for t in (linear.weight, linear.bias, *update.parameters(), *update.buffers())}
        sizes = []

        def pack(tensor):
            sizes.append(0 if tensor.data_ptr() in own else tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            update(torch.randn(5, 200, requires_grad=True))
        return sum(sizes)

    assert kept(3) <= 5 * 3  # the columns of x that the entries read
    assert kept(10_000) <= 5 * 200


def test_sparse_update_under_autocast_and_where_another_method_trains_the_weight():
    linear, update = sparse_update()
    x = torch.randn(3, 12)
    with torch.autocast("cpu", torch.bfloat16):
        half = update(x)
    assert half.dtype == torch.bfloat16
    half.sum().backward()
    assert update.weight.grad.dtype == torch.float32
    torch.testing.assert_close(half.float(), update(x), atol=0.1, rtol=0.05)
    linear.weight.requires_grad = True
    update(x).square().sum().backward()
    assert linear.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("mode", ["parallel", "sequential"])
@pytest.mark.parametrize("method", ["spt_lora", "spt_adapter"])
def test_what_trains_is_what_was_allocated(method, mode, images):
    model = make_model(method, **{f"MODEL__{method.upper()}__MODE": mode})
    allocation = Allocation.load(
        make_allocation(make_vit(), METHODS[method].rules(make_cfg().MODEL[method.upper()], make_vit()))
    )
    spt, known = model.methods[method], pieces(model.vit)
    names = allocation.names(model.vit)
    masks = allocation.masks(model.vit)
    assert spt.dropped == sum(len(i) for n, i in masks.items() if "norm" in n)
    vectors = sum(known[n].numel for n in names if len(known[n].shape) == 1)
    rank, bias = 8, method == "spt_adapter"
    modules = 0
    for name in names:
        if len(known[name].shape) == 2:
            outputs, inputs = known[name].shape
            inputs = outputs if mode == "sequential" and "proj" not in name else inputs
            modules += rank * (inputs + outputs) + (rank + outputs if bias else 0)
    trained = model.num_trained()
    assert sum(trained.values()) - trained["head"] == vectors + modules + len(allocation.masked) - spt.dropped + 32
    randomise(model)
    assert not torch.allclose(model(images), make_model("linear")(images), atol=1e-3)


def test_weights_learned_with_one_allocation_do_not_go_into_another(tmp_path):
    vit = make_vit()
    first, second = (allocate(vit, random_sensitivity(vit), RULES, 3000.0) for _ in range(2))
    other = second.masked.clone()
    other[-1] += 1 if other[-1] + 1 < second.fits[1] else -1
    first.save(tmp_path / "1.safetensors")
    dataclasses.replace(second, masked=other.sort().values).save(tmp_path / "2.safetensors")
    one, two = (make_model("spt_lora", MODEL__SPT_LORA__ALLOCATION=str(tmp_path / f"{i}.safetensors")) for i in (1, 2))
    with pytest.raises(ValueError, match="another allocation"):
        two.load_tuned_state_dict(one.tuned_state_dict())


# --- a task's sensitivities

SPT = ["MODEL.TRANSFER_TYPE", "spt_lora", "MODEL.SPT_LORA.BUDGET", "0.01", "MODEL.SPT_LORA.NUM_BATCHES", "2"]


def test_sensitivities_are_the_squared_gradients_of_the_first_batches(tmp_path):
    cfg, _ = quick(tmp_path, *SPT, "MODEL.SPT_LORA.VIT_DROP_PATH", "0.0", "MODEL.SPT_LORA.BATCH_SIZE", "8")
    data = open_data(cfg)
    keys, device = cfg.MODEL.SPT_LORA, torch.device("cpu")
    plain = quick(tmp_path, "MODEL.HEAD_INIT", "zero")[0]  # the estimate brings its own head
    model = build_model(plain, 10)
    found, count = estimate(model, first_images(data, keys), cfg, keys, device)
    assert count == 16
    loaders, _ = dataclasses.replace(data, splits={"train": data.splits["train"]}).loaders(cfg, device)
    batch = next(iter(loaders["train"]))
    expected = 0
    for part in (slice(0, 8), slice(8, 16)):
        weight = model.vit.blocks[1].attn.proj.weight.requires_grad_()
        loss = F.cross_entropy(model(batch[0][part]), batch[1][part])
        expected += torch.autograd.grad(loss, weight)[0].square()
    torch.testing.assert_close(found["blocks.1.attn.proj.weight"], expected, rtol=1e-3, atol=1e-9)
    assert not any(p.requires_grad for n, p in model.vit.named_parameters() if "proj.weight" not in n)


def test_a_tensor_without_a_gradient_is_not_sensitive(images):
    model = make_model("linear")
    model.vit.blocks[0].unused = torch.nn.LayerNorm(4)
    found = squared_gradients(model, [(images, torch.tensor([0, 1]))])
    assert found["blocks.0.attn.proj.weight"].any()
    assert torch.equal(found["blocks.0.unused.weight"], torch.zeros(4))


def test_files_sorted_by_class_are_mixed(tmp_path):
    cfg, _ = quick(tmp_path, *SPT, "MODEL.SPT_LORA.BATCH_SIZE", "10")
    data = open_data(cfg)
    train = data.splits["train"]
    by_class = dataclasses.replace(data, splits={"train": train.take(train.labels.argsort(kind="stable"))})
    for tried in (data, by_class):
        assert len(set(first_images(tried, cfg.MODEL.SPT_LORA).splits["train"].labels[:20])) > 5
    assert first_images(data, cfg.MODEL.SPT_LORA).splits["train"].keys == train.keys[:20]


def test_the_same_seed_gives_the_same_allocation(tmp_path):
    cfg, _ = quick(tmp_path, *SPT)
    (one,), (two,) = (make_allocations(cfg, open_data(cfg), torch.device("cpu"), [0.01]) for _ in range(2))
    assert torch.equal(one.masked, two.masked)
    assert one.about == two.about
    assert one.about["task"] == "digits"


def test_a_run_does_both_stages_and_stands_alone_afterwards(tmp_path):
    cfg, folder = quick(tmp_path, *SPT)
    result = run(cfg, folder)
    assert folder.allocation.is_file()
    assert folder.allocation.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert result["allocation"]["budget"] == 10_000
    assert read_json(folder.result)["allocation"]["total"] == result["allocation"]["total"]
    trained = result["parameters"]["trained"] - result["parameters"]["head"]
    assert abs(trained - 10_000) < 1500
    folder.allocation.unlink()
    assert evaluate_run(folder, cfg)["top1"] == result["test"]["top1"]
    assert load_tuned(folder.path).model.methods["spt_lora"].masked.numel() > 0


def test_an_allocation_can_be_made_first_for_several_budgets(tmp_path, capsys):
    settings = [*QUICK, "OUTPUT_DIR", str(tmp_path), *SPT]
    assert sensitivity.main(["--out", str(tmp_path / "made"), "--budgets", "0.005 0.01", *settings]) == 0
    said = capsys.readouterr().out
    files = sorted((tmp_path / "made").glob("*.safetensors"))
    assert len(files) == 2
    assert all(path.with_suffix(".png").is_file() for path in files)
    cfg, folder = quick(tmp_path, *SPT, "MODEL.SPT_LORA.ALLOCATION", str(files[1]))
    result = run(cfg, folder)
    assert not folder.allocation.exists()
    assert f"{result['parameters']['trained'] - result['parameters']['head']:,} + 650 in the head" in said
    assert "trained parameters" in report(Allocation.load(files[1]), build_model(cfg, 10))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["MODEL.TRANSFER_TYPE", "lora"], "spt_lora and spt_adapter"),
        (["--budgets", "much", *SPT], "must be numbers"),
        (["--budgets", "0", *SPT], "more than 0"),
        ([*SPT, "MODEL.SPT_LORA.BUDGET", "-1"], "BUDGET is -1.0"),
        ([*SPT, "MODEL.SPT_LORA.MODE", "both"], "known: 'parallel', 'sequential'"),
    ],
)
def test_mistakes_end_with_one_clear_line(args, says, tmp_path, capsys):
    flags, pairs = (args[:2], args[2:]) if args[0].startswith("--") else ([], args)
    assert sensitivity.main([*flags, *QUICK, "OUTPUT_DIR", str(tmp_path), *pairs]) == 2
    assert says in capsys.readouterr().err
