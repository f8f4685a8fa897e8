"""The frozen prefix: where it ends, that training behind it is the same training, and what is kept of it on disk."""

import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import timm
import torch
from conftest import make_model, make_vit, randomise
from runs import quick, same_result
from timm.models.vision_transformer import VisionTransformer

from src.configs.config import load_cfg
from src.data.opened import open_data
from src.data.pixels import Pixels
from src.data.rows import RowCache, Rows
from src.data.store import Writer
from src.engine.features import FeatureLoader, reuse_features
from src.engine.results import RunFolder
from src.engine.run import run
from src.engine.trainer import autocast, train
from src.models.methods.selective import Partial
from src.models.prefix import Layout, Prefix, frozen_prefix
from src.models.vit_models import TunedViT, parse
from src.utils.io import read_json_lines
from src.utils.seed import seed_everything

CPU = torch.device("cpu")
ALL = "the pooled features"

# --- where it ends


@pytest.mark.parametrize(
    ("transfer_type", "keys", "end"),
    [
        ("linear", {}, ALL),
        ("partial-1", {}, "blocks.1"),
        ("partial-2", {}, "blocks.0"),
        ("partial-3", {}, None),
        ("attention_tuning", {}, "blocks.1"),
        ("mlp_tuning", {}, "blocks.1"),
        ("block_tuning", {"MODEL__BLOCK_TUNING__BLOCKS": [1]}, "blocks.0"),
        ("block", {}, "blocks.1"),
        ("block", {"MODEL__BLOCK__SPLIT": 2}, "blocks.0"),
        ("block", {"MODEL__BLOCK__SPLIT": 1}, None),
        ("partial-2+block", {}, "blocks.0"),
        ("prompt", {"MODEL__PROMPT__DEEP": True, "MODEL__PROMPT__REVERSE_DEEP": True,
                    "MODEL__PROMPT__NUM_DEEP_LAYERS": 1}, "blocks.1"),
        ("vqt", {}, ALL),
        ("vqt+partial-1", {}, "blocks.1"),
        ("side", {}, ALL),
        *((name, {}, None) for name in ("prompt", "lora", "adaptformer", "layernorm", "tinytl-bias", "cls", "end2end")),
    ],
)  # fmt: skip
def test_the_prefix_ends_before_the_first_thing_that_acts(transfer_type, keys, end, images):
    prefix = frozen_prefix(make_model(transfer_type, **keys), images)
    assert (prefix and prefix.name) == end


def test_filters_before_the_first_block_leave_no_prefix(images):
    assert frozen_prefix(make_model("linear", "freqfit"), images) is None


def test_a_dropout_that_acts_ends_the_prefix(images, monkeypatch):
    rates = dict(proj_drop_rate=0.1, pos_drop_rate=0.1)
    assert frozen_prefix(make_model("partial-1", vit=make_vit(**rates)), images).name == "blocks.1"
    monkeypatch.setattr(Partial, "vit_in_train_mode", True)
    assert frozen_prefix(make_model("partial-1", vit=make_vit(**rates)), images) is None
    assert frozen_prefix(make_model("partial-1", vit=make_vit(drop_path_rate=0.1)), images).name == "blocks.0"
    assert frozen_prefix(make_model("partial-1"), images).name == "blocks.1"


def test_a_network_with_a_forward_of_its_own_has_none(images):
    class Other(VisionTransformer):
        def _pos_embed(self, x):
            return super()._pos_embed(x) * 2

    tiny = dict(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=0)
    assert frozen_prefix(make_model("linear", vit=Other(**tiny)), images) is None
    vit = make_vit()
    vit.forward_features = lambda x: 2 * VisionTransformer.forward_features(vit, x)
    assert frozen_prefix(make_model("linear", vit=vit), images) is None


# --- that it is the same model


def assert_same(model: TunedViT, images: torch.Tensor) -> Prefix:
    """Logits and gradients of the suffix on records, in training mode with all its dropout, are the model's bits."""
    randomise(model)
    prefix = frozen_prefix(model, images)
    with torch.no_grad():
        records = prefix(images)
    trained = [param for param in model.parameters() if param.requires_grad]
    found = []
    for network, x in ((model, images), (prefix.suffix, records)):
        network.train()
        torch.manual_seed(0)
        logits = network(x)
        found.append([logits, *torch.autograd.grad(logits.square().sum(), trained, allow_unused=True)])
    assert not model.vit.training
    for one, other in zip(*found, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    return prefix


VITS = {
    "class token": {},
    "average": dict(global_pool="avg", class_token=False),
    "fc_norm": dict(global_pool="avg", fc_norm=True),
    "attention": dict(global_pool="map"),
    "registers": dict(reg_tokens=4, no_embed_class=True),
    "pre_norm": dict(pre_norm=True),
    "dynamic": dict(dynamic_img_size=True),
}


@pytest.mark.parametrize("kind", VITS)
@pytest.mark.parametrize("transfer_type", ["linear", "partial-1", "vqt", "vqt+block", "side+block_tuning"])
def test_the_suffix_is_the_model(kind, transfer_type, images):
    prefix = assert_same(make_model(transfer_type, vit=make_vit(**VITS[kind]), MODEL__MLP_NUM=1), images)
    assert (prefix.name == ALL) == (transfer_type in ("linear", "vqt"))


@pytest.mark.parametrize(
    ("arch", "transfer_type", "end"),
    [
        ("test_convnext", "linear", ALL),
        ("test_convnext", "partial-1", "stages.2"),
        ("swin", "linear", ALL),
        ("swin", "mlp_tuning", "layers.0"),
    ],
)
def test_the_suffix_of_other_backbones(arch, transfer_type, end):
    tiny = dict(img_size=64, embed_dim=24, depths=(1, 2), num_heads=(2, 2), window_size=4)
    torch.manual_seed(1)
    vit = timm.create_model("swin_tiny_patch4_window7_224", **tiny) if arch == "swin" else timm.create_model(arch)
    assert assert_same(make_model(transfer_type, vit=vit), torch.randn(2, 3, 64, 64)).name == end


def test_layouts_keep_dtypes_and_the_order_of_memory():
    tensors = [
        torch.randn(2, 5).bfloat16(),
        torch.randn(2, 4, 6, 3).permute(0, 3, 1, 2),
        torch.randn(2, 9, 4)[..., 2:],
        torch.randint(9, (2, 3), dtype=torch.uint8),
    ]
    layout = Layout.of(tensors)
    again = layout.unpack(layout.pack(tensors))
    for one, other in zip(tensors, again, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert again[1].stride() == tensors[1].stride()


# --- that it is the same training


def opened(tmp_path, *pairs, size=32, count=18):
    """Loaders of a few digits, with a last batch that is smaller, and the config."""
    settings = [
        "DATA.NAME", "digits", "DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", str(size), "DATA.BATCH_SIZE", "8",
        "DATA.TRAIN_SPLIT", "train", "DATA.PIXELS", "backbone", "SOLVER.OPTIMIZER", "adamw", "SOLVER.BASE_LR", "0.003",
        "SOLVER.WARMUP_EPOCH", "0", "SOLVER.TOTAL_EPOCH", "2", "DATA.CACHE_DIR", str(tmp_path / "cache"),
        "MODEL.SIDE.WEIGHTS", "", "MODEL.SAVE_CKPT", "False",
    ]  # fmt: skip
    cfg = load_cfg("", [*settings, *pairs])
    data = open_data(cfg)
    data.splits = {name: data.splits[name].take(list(range(n))) for name, n in (("train", count), ("val", 9))}
    return cfg, data.loaders(cfg, CPU)[0]


def fit(tmp_path, vit, transfer_type, *pairs, size=32):
    """Rows and tuned weights of a short training."""
    cfg, loaders = opened(tmp_path, *pairs, size=size)
    torch.manual_seed(2)
    model = TunedViT(vit, parse(transfer_type), cfg.MODEL, 10)
    seed_everything(3)
    folder = tmp_path / f"{transfer_type}-{time.perf_counter_ns()}"
    folder.mkdir()
    train(cfg, model, loaders, RunFolder(folder))
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in read_json_lines(folder / "metrics.jsonl")]
    return rows, model.tuned_state_dict()


def same_training(one, other):
    assert one[0] == other[0]
    assert one[0][0]["loss"] != one[0][1]["loss"]
    assert one[1].keys() == other[1].keys()
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


@pytest.mark.parametrize("transfer_type", ["linear", "partial-2", "block", "vqt", "block_tuning"])
def test_training_is_the_same_to_the_bit(tmp_path, transfer_type, caplog):
    """197 tokens of 192 channels, which matrix products take in blocks; batches of 8, 8 and 2."""

    def vit():
        torch.manual_seed(1)
        return VisionTransformer(img_size=112, patch_size=8, embed_dim=192, depth=3, num_heads=3, num_classes=0)

    with caplog.at_level(logging.INFO):
        one = fit(tmp_path, vit(), transfer_type, "DATA.CACHE_FEATURES", "off", size=112)
        assert "frozen up to" not in caplog.text
        other = fit(tmp_path, vit(), transfer_type, size=112)
        assert "activations of 27 images computed once" in caplog.text
    same_training(one, other)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        same_training(one, fit(tmp_path, vit(), transfer_type, size=112))
    assert "activations of 27 images found on disk" in caplog.text


@pytest.mark.parametrize(
    ("transfer_type", "pairs"),
    [
        ("partial-2+block", ()),
        ("vqt+partial-1", ("MODEL.MLP_NUM", "1")),
        ("mlp_tuning", ("SOLVER.ACCUMULATE", "2")),
        ("vqt", ("SOLVER.AMP", "bf16")),
        ("partial-1", ("SOLVER.AMP", "bf16")),
    ],
)
def test_mixes_and_other_precisions_too(tmp_path, transfer_type, pairs):
    one = fit(tmp_path, make_vit(), transfer_type, "DATA.CACHE_FEATURES", "off", *pairs)
    same_training(one, fit(tmp_path, make_vit(), transfer_type, *pairs))


def test_activations_are_computed_in_batches_as_large_as_those_of_the_run(tmp_path, monkeypatch):
    """Or nearly: one image alone gets other bits where channels are many and threads several."""
    computed = counting(monkeypatch, Prefix, "__call__")
    reused(tmp_path)
    assert [len(images) for (images,) in computed] == [8, 8, 8, 8, 1]  # 18 that train, 9 as evaluation takes them


def test_runs_are_the_same_from_end_to_end(tmp_path):
    folders = []
    for reuse in ("off", "auto"):
        cfg, folder = quick(
            tmp_path / reuse, "MODEL.TRANSFER_TYPE", "partial-2", "DATA.TRAIN_SPLIT", "train", "SOLVER.PATIENCE", "2",
            "DATA.CACHE_FEATURES", reuse, "DATA.CACHE_DIR", str(tmp_path / "cache"),
        )  # fmt: skip
        run(cfg, folder)
        folders.append(folder.path)
    assert folders[0].name == folders[1].name, "the key is not part of the experiment"
    same_result(*folders)


def test_batches_come_in_the_loaders_order(tmp_path):
    _, loaders = opened(tmp_path, count=17)  # the last image alone joins the batch before
    loader = loaders["train"]
    features = FeatureLoader(loader, torch.stack([torch.arange(17), loader.labels], dim=1))
    assert len(features) == len(loader) == 2
    for number in (0, 5):
        for (records, labels), (_, expected) in zip(features.epoch(number), loader.epoch(number), strict=True):
            assert torch.equal(labels, expected)
            assert torch.equal(records[:, 1], expected)
    assert torch.equal(torch.cat([records for records, _ in features])[:, 0], torch.arange(17))
    for (_, labels), (_, expected) in zip(features, loader, strict=True):
        assert torch.equal(labels, expected)


# --- when there is none


def reused(tmp_path, *pairs, model=None):
    """The network, train and val that reuse_features gives, the model, and its loaders."""
    cfg, loaders = opened(tmp_path, *pairs)
    model = model or make_model("partial-2")
    loaders.pop("test", None)
    network, found = reuse_features(cfg, model, loaders, autocast(cfg, CPU))
    return (network, found["train"], found["val"]), model, loaders


@pytest.mark.parametrize(
    "pairs",
    [
        ("DATA.CACHE_FEATURES", "off"),
        ("DATA.AUGMENT", "flip"),
        ("DATA.MIXUP", "0.2"),
        ("DATA.CUTMIX", "0.2"),
        ("DATA.COLOR_JITTER", "0.2"),
        ("DATA.RANDOM_ERASING", "0.2"),
    ],
)
def test_images_that_change_are_not_computed_once(tmp_path, pairs):
    (network, train, val), model, loaders = reused(tmp_path, *pairs)
    assert (network, train, val) == (model, loaders["train"], loaders["val"])


def test_what_takes_too_much_is_said_before_anything_is_computed(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(Prefix, "__call__", None)
    with caplog.at_level(logging.WARNING):
        (network, *_), model, _ = reused(tmp_path, "DATA.CACHE_FEATURES_GB", "0.00001")
    assert network is model
    size = (18 + 9) * 17 * 32 * 4 / 2**30
    assert f"they take {size:.3g} GiB and DATA.CACHE_FEATURES_GB is 1e-05" in caplog.text


# --- on disk


def kept(tmp_path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*-features-*.npy"))


def counting(monkeypatch, of, name) -> list:
    calls, original = [], getattr(of, name)
    monkeypatch.setattr(of, name, lambda self, *args: (calls.append(args), original(self, *args))[1])
    return calls


def test_a_second_run_reads_and_computes_no_image_again(tmp_path, monkeypatch):
    pairs = ("DATA.CACHE_GB", "0.0001")  # 0.1 MB: no room for pixels, which would be decoded
    model = make_model("linear")
    (_, first, first_val), *_ = reused(tmp_path, *pairs, model=model)
    assert len(kept(tmp_path)) == 2
    decoded, computed = counting(monkeypatch, Pixels, "prepare"), counting(monkeypatch, Prefix, "__call__")
    (_, second, second_val), *_ = reused(tmp_path, *pairs, model=model)
    assert not decoded
    assert not computed
    assert torch.equal(first.records, second.records)
    assert torch.equal(first_val.records, second_val.records)


def test_what_decides_activations_decides_which_are_found(tmp_path):
    reused(tmp_path)
    assert len(kept(tmp_path)) == 2  # train and val
    same = ("SOLVER.BASE_LR", "0.5", "SOLVER.WEIGHT_DECAY", "0.1", "SEED", "7", "DATA.CACHE_PLACE", "memory")
    reused(tmp_path, *same)
    reused(tmp_path, model=make_model("block_tuning", MODEL__BLOCK_TUNING__BLOCKS=[1]))  # frozen up to the same block
    assert len(kept(tmp_path)) == 2
    vit = make_vit()
    vit.blocks[2].mlp.fc1.weight.data.add_(1)  # behind the prefix
    reused(tmp_path, model=make_model("partial-2", vit=vit))
    assert len(kept(tmp_path)) == 2
    vit.blocks[0].mlp.fc1.weight.data[0, 0] += 1
    nudged = make_vit()
    weight = nudged.blocks[0].mlp.fc1.weight.data
    weight.copy_(weight.nextafter(weight + 1))  # in bf16, and so for the example, still the same
    others = [
        ((), make_model("partial-2", vit=vit)),
        ((), make_model("partial-1")),
        ((), make_model("partial-2", vit=make_vit(num_heads=4))),
        (("SOLVER.AMP", "bf16"), None),
        (("SOLVER.AMP", "bf16"), make_model("partial-2", vit=nudged)),
        (("DATA.BATCH_SIZE", "9"), None),
        (("DATA.MEAN", "[0.1, 0.1, 0.1]"), None),
        (("DATA.INTERPOLATION", "bicubic"), None),
    ]
    for i, (pairs, model) in enumerate(others):
        reused(tmp_path, *pairs, model=model)
        assert len(kept(tmp_path)) == 4 + 2 * i


def test_damage_is_noticed_and_repaired(tmp_path, caplog):
    model = make_model("partial-2")
    (_, whole, _), *_ = reused(tmp_path, model=model)
    records = whole.records.clone()
    path = next(p for p in kept(tmp_path) if "train" in p.name)
    content = path.read_bytes()
    broken = bytearray(content)
    broken[700] ^= 1
    for damage in (bytes(broken), content[:300], b"", b"garbage"):
        path.unlink()  # mapped by an earlier run
        path.write_bytes(damage)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            (_, again, _), *_ = reused(tmp_path, model=model)
        assert f"{path} is damaged and will be recreated" in caplog.text
        assert torch.equal(again.records, records)
        assert path.read_bytes() == content
    path.with_suffix(".json").write_text("{")
    (_, again, _), *_ = reused(tmp_path, model=model)
    assert torch.equal(again.records, records)


def test_where_nothing_can_be_kept_on_disk_memory_does(tmp_path, caplog, monkeypatch):
    model = make_model("partial-2")
    (_, expected, _), *_ = reused(tmp_path, model=model)

    def check(name, says, *pairs):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            (network, found, _), *_ = reused(tmp_path / name, *pairs, model=model)
        assert network is not model
        assert torch.equal(found.records, expected.records)
        assert says in caplog.text
        assert not kept(tmp_path / name)
        assert not list(tmp_path.rglob("*.partial"))

    check("off", "computed once", "DATA.CACHE", "off")
    check("little", "left of DATA.CACHE_GB", "DATA.CACHE_GB", "0.00001")
    (tmp_path / "file").write_text("")
    check("file", "DATA.CACHE_DIR", "DATA.CACHE_DIR", str(tmp_path / "file" / "cache"))
    opened(tmp_path / "full")  # the images are there

    def full(self, row):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Writer, "add", full)
    check("full", "No space left on device")


def test_without_room_anywhere_training_goes_on_without(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("src.engine.features.quarter_of_memory", lambda: 1000)
    with caplog.at_level(logging.WARNING):
        (network, train, _), model, loaders = reused(tmp_path, "DATA.CACHE", "off")
    assert (network, train) == (model, loaders["train"])
    assert "of memory" in caplog.text


# --- several processes, and those that die


def rows(compute=None):
    return Rows("activations of train", "digits-train-0-features", 6, 4, {"weights": "a"})


def steps(log: Path):
    """Six rows in three pieces, slowly, and a line in a file for every time that they are computed."""

    def compute():
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")
        for part in torch.arange(24).view(6, 4).split(2):
            time.sleep(0.1)
            yield part

    return compute


def in_processes(*targets):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=target) for target in targets]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def test_of_several_processes_one_computes(tmp_path):
    def work():
        found, _ = RowCache(tmp_path, 1e6, 1e6).open(rows(), steps(tmp_path / "log"))
        assert torch.equal(found, torch.arange(24).view(6, 4))

    assert in_processes(work, work, work) == [0, 0, 0]
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_a_killed_process_leaves_nothing_that_is_used(tmp_path):
    def dies():
        for i, part in enumerate(steps(tmp_path / "log")()):
            if i == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            yield part

    assert in_processes(lambda: RowCache(tmp_path, 1e6, 1e6).open(rows(), dies)) == [-signal.SIGKILL]
    assert list(tmp_path.glob(".*.partial"))
    found, known = RowCache(tmp_path, 1e6, 1e6).open(rows(), steps(tmp_path / "log"))
    assert not known
    assert torch.equal(found, torch.arange(24).view(6, 4))
    assert not list(tmp_path.glob(".*.partial"))
