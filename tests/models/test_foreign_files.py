"""Files from anywhere: a right result or one clear error that names the file; no code of theirs runs."""

import argparse
import io
import json
import pickle
import resource
import shutil
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from random import Random

import numpy as np
import pytest
import timm
import torch
import yaml
from conftest import make_allocation, make_cfg, make_model, make_vit, randomise
from fvcore.common.config import CfgNode
from paths import PARITY
from PIL import Image
from programs import run_program
from safetensors import safe_open
from safetensors.torch import save_file
from torch.amp import GradScaler

from src.api import load, save, tune
from src.configs.config import ConfigError, load_cfg
from src.data.pixels import build_pixels
from src.engine.checkpoint import CheckpointError, load_last, load_tuned, save_last, save_tuned
from src.engine.evaluator import BrokenModel, measure
from src.engine.results import RunFolder
from src.engine.saved import checksum
from src.models.allocation import Allocation
from src.models.vit_backbones import convert, timm_weights
from src.models.vit_backbones.build import build_backbone, load_weights
from src.models.vit_backbones.tensors import NotOnlyTensors, read_content, read_state, reading
from src.models.vit_models import METHODS, build_model
from src.tools.export import __main__ as export
from src.tools.merge import __main__ as merge
from src.tools.predict import __main__ as predict
from src.utils.io import read_json_lines

BIG = torch.randn(1, 3, 224, 224)
TINY = "vit_tiny_patch16_224"
CLIP = PARITY / "zoo" / "clip_ViT-B-16.pt"


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(7)
    return timm.create_model(TINY, num_classes=3).state_dict()


def build(path, name=f"timm:{TINY}", size=(64, 64)):
    return build_backbone(name, path.parent, size, weight_path=str(path))


# --- a file that does not hold the backbone


def other_family(state):
    return timm.create_model("resnet18").state_dict()


def half_a_file(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith(("blocks.7", "blocks.8", "norm."))}


def one_missing(state):
    return {name: tensor for name, tensor in state.items() if name != "blocks.11.norm2.bias"}


def deeper(state):
    return state | {name.replace("blocks.11", "blocks.12"): t for name, t in state.items() if "blocks.11" in name}


def wider(state):
    return timm.create_model("vit_small_patch16_224").state_dict()


def other_patches(state):
    return state | {"patch_embed.proj.weight": torch.randn(192, 3, 32, 32)}


def hugging_face(state):
    return {f"vit.encoder.{name.replace('blocks', 'layer')}": tensor for name, tensor in state.items()}


def nothing(state):
    return {}


def not_a_number(state):
    return state | {"blocks.3.mlp.fc1.bias": torch.full((768,), float("nan"))}


def whole_numbers(state):
    return state | {"blocks.3.mlp.fc1.weight": torch.ones(768, 192, dtype=torch.int8)}


def in_a_list(state):
    return {"models": [state]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_family, r"150 missing, 122 unexpected, 0 of another shape"),
        (half_a_file, r"2[68] missing, 0 unexpected, 0 of another shape.*missing blocks\.7\.attn\.proj\.bias"),
        (one_missing, r"1 missing, 0 unexpected, 0 of another shape.*missing blocks\.11\.norm2\.bias"),
        (deeper, r"0 missing, 12 unexpected, 0 of another shape.*unexpected blocks\.12\.attn"),
        (wider, r"0 missing, 0 unexpected, \d+ of another shape.*\(384,\), not \(192,\)"),
        (other_patches, r"1 of another shape.*\(192, 3, 32, 32\), not \(192, 3, 16, 16\)"),
        (hugging_face, r"\d+ missing, \d+ unexpected"),
        (nothing, r"150 missing, 0 unexpected"),
        (not_a_number, r"blocks\.3\.mlp\.fc1\.bias holds NaN"),
        (whole_numbers, r"blocks\.3\.mlp\.fc1\.weight is torch\.int8"),
        (in_a_list, r"150 missing"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
def test_a_file_that_does_not_hold_the_backbone_is_refused_with_counts(tmp_path, tiny, change, said, wrap):
    torch.save(wrap(change(tiny)), path := tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=said) as error:
        build(path, size=(224, 224))
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 5000


@pytest.mark.parametrize("prefix", ["backbone.", "encoder.", "image_encoder.trunk."])
def test_another_prefix_is_named_and_not_guessed(tmp_path, tiny, prefix):
    headless = {name: tensor for name, tensor in tiny.items() if not name.startswith("head.")}
    torch.save({"state_dict": {prefix + name: t for name, t in headless.items()}}, path := tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=f"150 missing, 150 unexpected.*{prefix}.* would fit"):
        build(path, size=(224, 224))


def wrapped(prefix, *keys):
    def wrap(state):
        content = {prefix + name: tensor for name, tensor in state.items()}
        for key in reversed(keys):
            content = {key: content, "epoch": 3, "args": argparse.Namespace(lr=0.1)}
        return content

    return wrap


@pytest.mark.parametrize(
    "wrap",
    [
        wrapped(""),
        wrapped("", "state_dict"),
        wrapped("module.", "model"),
        wrapped("model.", "state_dict"),
        wrapped("module._orig_mod.", "state_dict_ema"),
        wrapped("", "model_ema"),
        wrapped("", "model", "state_dict"),
    ],
)
@pytest.mark.parametrize("head", [True, False])
def test_wrappers_of_training_code_come_off_and_the_head_may_be_missing(tmp_path, tiny, wrap, head, caplog):
    state = tiny if head else {name: tensor for name, tensor in tiny.items() if not name.startswith("head.")}
    torch.save(content := wrap(state), path := tmp_path / "weights.pth")
    caplog.set_level("INFO")
    vit = build(path, size=(224, 224))
    assert all(torch.equal(tensor, tiny[name]) for name, tensor in vit.state_dict().items())
    assert ("unwrapped from" in caplog.text) == (next(iter(content)) not in tiny)


def test_an_average_beside_the_weights_is_taken_as_timm_does(tmp_path, tiny):
    average = {name: tensor + 1 for name, tensor in tiny.items()}
    torch.save({"state_dict": tiny, "state_dict_ema": average}, path := tmp_path / "weights.pth")
    assert torch.equal(build(path).norm.weight, average["norm.weight"])


def test_timm_reads_the_same_from_the_formats_it_knows(tmp_path, tiny):
    """Position embeddings for another image size, and CLIP's own file, as timm itself loads them."""
    save_file(tiny, path := tmp_path / "weights.safetensors")
    timms = timm.create_model(
        TINY, pretrained=True, num_classes=0, img_size=(96, 64), pretrained_cfg_overlay={"file": str(path)}
    )
    ours = build(path, size=(96, 64))
    assert all(torch.equal(tensor, timms.state_dict()[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_atto"])
def test_other_families_are_as_strict(tmp_path, name, tiny):
    state = timm.create_model(name, num_classes=5).state_dict()
    torch.save({"model": state}, path := tmp_path / "right.pth")
    ours = build(path, f"timm:{name}", (224, 224)).state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in ours.items())
    lost = sorted(key for key in ours if key.endswith("weight"))[3]
    torch.save({key: tensor for key, tensor in state.items() if key != lost}, path := tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=f"1 missing, 0 unexpected.*{lost}"):
        build(path, f"timm:{name}", (224, 224))
    torch.save(tiny, path := tmp_path / "vit.pth")
    with pytest.raises(ValueError, match=r"\d+ missing, \d+ unexpected"):
        build(path, f"timm:{name}", (224, 224))


@pytest.mark.parametrize(("name", "keywords"), [
    ("vit_base_patch16_224.augreg_in21k", {}),
    ("flexivit_small", {"interpolation": "bilinear", "antialias": False}),
    ("vit_base_patch16_radio_v3", {"interpolation": "bilinear", "antialias": False, "align_corners": True}),
])  # fmt: skip
def test_published_files_are_translated_as_timm_does(name, keywords, monkeypatch):
    """What timm hands to its own loader is what ours uses."""
    seen = []
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, filter_fn, **__: seen.append(filter_fn))
    with torch.device("meta"):
        timm.create_model(name.split(".")[0], pretrained=True, num_classes=0)
    ours = timm_weights.filter_of(name)
    for found in (seen[0], ours):
        assert getattr(found, "keywords", {}) == keywords
    assert getattr(seen[0], "func", seen[0]) is getattr(ours, "func", ours)


def test_weights_that_timm_fetched_must_be_whole(tmp_path, tiny, monkeypatch):
    lost = {name: tensor for name, tensor in tiny.items() if name != "blocks.2.norm1.weight"}
    monkeypatch.setattr("src.models.vit_backbones.timm_weights.hub_file", lambda _: tmp_path)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(lost))
    with pytest.raises(ValueError, match=r"lack 1 tensors: blocks\.2\.norm1\.weight"):
        build_backbone(f"timm:{TINY}", tmp_path, (224, 224))


def test_an_array_that_no_backbone_has_is_unexpected_in_npz_files_too(tmp_path):
    arrays = dict(np.load("pretrained/vit_micro_glyphs.npz"))
    np.savez(path := tmp_path / "extra.npz", **arrays, **{"Transformer/encoderblock_1/adapter": np.ones(3, np.float32)})
    with pytest.raises(ValueError, match=r"1 unexpected.*encoderblock_1/adapter"):
        build(path, "vit_micro_glyphs", (32, 32))


# --- code in a file


def test_a_torchscript_archive_gives_its_tensors_and_runs_nothing(tmp_path):
    canary = tmp_path / "ran"
    archive = tmp_path / "clip.pt"
    with zipfile.ZipFile(CLIP) as old, zipfile.ZipFile(archive, "w") as new:
        for record in old.infolist():
            content = old.read(record)
            if record.filename.endswith("clip/model.py"):
                hook = f'  def __setstate__(self, s: Any) -> None:\n    torch.save("x", "{canary}")\n'
                content = content.replace(b"class CLIP(Module):\n", b"class CLIP(Module):\n" + hook.encode())
            new.writestr(record.filename, content)
    vit = make_vit(depth=2, num_heads=4)
    assert read_state(archive).keys() == read_state(CLIP).keys()
    assert torch.equal(convert.clip(archive)["norm.weight"], convert.clip(CLIP)["norm.weight"])
    with pytest.raises(ValueError, match="does not fit"):
        load_weights(vit, archive, convert.clip)
    assert not canary.exists()


def test_a_scripted_module_is_read_as_torch_reads_it(tmp_path):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(3, 4)
            self.parts = torch.nn.ModuleList([torch.nn.BatchNorm1d(4), torch.nn.Conv2d(1, 2, 3)])
            self.turned = torch.nn.Parameter(torch.randn(4, 3).half().t())
            self.same = self.first
            self.sizes, self.word, self.flag = [1, 2], "word", True

        def forward(self, x):
            return self.first(x)

    scripted = torch.jit.script(Net())
    scripted.save(path := str(tmp_path / "net.pt"))
    wanted, found = scripted.state_dict(), read_state(Path(path))
    assert found.keys() == wanted.keys()
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in wanted.items()
    )


def with_pickle(path, content):
    """A TorchScript archive that holds this pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", content)
        archive.writestr("net/constants.pkl", pickle.dumps(()))
        archive.writestr("net/data/0", b"\0" * 16)


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02cos\nsystem\n(X\x05\x00\x00\x00touchtR.",
        b"\x80\x02cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__code__K\x01sb.",  # attributes for a function
        b"\x80\x02ctorch.jit\nload\n(X\x01\x00\x00\x00xtR.",
        b"\x80\x02(X\x03\x00\x00\x00abctR.",
        b"\x80\x02]K\x01a",  # no end
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\x00(J\xff\xff\xff\x7ft(K\x01t\x89}tR.",
        b"\x80\x02r\xff\xff\xff\x7f.",
        b"",
    ],
)
def test_a_pickle_in_an_archive_builds_nothing_but_tensors(tmp_path, content):
    with_pickle(path := tmp_path / "net.pt", content)
    with pytest.raises(ValueError, match=r"net\.pt"):
        load_weights(make_vit(), path, convert.clip)


def test_what_holds_python_objects_says_so_and_what_to_do(tmp_path, tiny):
    torch.save(timm.create_model(TINY), whole := tmp_path / "model.pth")
    torch.save({"state_dict": tiny, "best_acc": np.float64(0.5)}, scalar := tmp_path / "scalar.pth")
    torch.save({"model": tiny, "evil": Evil(tmp_path / "ran")}, evil := tmp_path / "evil.pth")
    for path in (whole, scalar, evil):
        with pytest.raises(ValueError, match=r"Python objects.*save its tensors alone") as error:
            build(path)
        assert str(path) in str(error.value)
        for converter in (convert.mae, convert.moco, convert.clip, convert.dino, convert.dinov2):
            with pytest.raises(ValueError, match=r"Python objects.*save its tensors alone"):
                load_weights(make_vit(), path, converter)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(NotOnlyTensors, match="VisionTransformer"):
        read_content(whole)


@pytest.mark.parametrize("make", [
    lambda: torch.ones(1).expand(10**7, 4),
    lambda: torch.ones(3, device="meta"),
    lambda: torch.eye(3).to_sparse(),
    lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
def test_a_tensor_without_values_of_its_own_is_named(tmp_path, tiny, make):
    torch.save(tiny | {"norm.bias": make()}, path := tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth.*norm\.bias"):
        build(path)


def test_compressed_parts_are_bounded(tmp_path):
    np.savez_compressed(path := tmp_path / "zeros.npz", cls=np.zeros(2 * 10**7, np.float32))
    with pytest.raises(ValueError, match=r"zeros\.npz.*80,000,\d+ bytes"):
        build(path, "vit_micro_glyphs", (32, 32))
    buffer = io.BytesIO()
    torch.save({"norm.bias": torch.zeros(10**7)}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path := tmp_path / "zeros.pth", "w", 8) as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))
    with pytest.raises(ValueError, match=r"zeros\.pth.*larger than the file"):
        build(path)


def test_a_flipped_bit_in_torchs_file_is_found(tmp_path, tiny):
    torch.save(tiny, path := tmp_path / "weights.pth")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pth.*checksum"):
        build(path)


# --- tuned.safetensors


CLASSES = ["cat", "dog", "owl"]


def micro(*opts):
    return load_cfg(
        "configs/digits.yaml", ["MODEL.TRANSFER_TYPE", "lora", "MODEL.LORA.RANK", "2", "DEVICE", "cpu", *opts]
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What a run writes, without the run."""
    cfg = micro()
    model = build_model(cfg, len(CLASSES))
    randomise(model)
    path = tmp_path_factory.mktemp("run") / "tuned.safetensors"
    save_tuned(path, model, cfg, CLASSES, build_pixels(cfg, "vtab"))
    return path


def parts(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}


def changed(saved, path, change):
    """A copy of the file after ``change(metadata, tensors)``, with the hash that a stranger would give it."""
    metadata, tensors = parts(saved)
    change(metadata, tensors)
    if "checksum" in metadata:
        metadata["checksum"] = checksum(metadata, tensors)
    save_file(tensors, path, metadata)
    return path


def put(name, value):
    return lambda metadata, _: metadata.update({name: value})


def setting(key, value):
    """One key of the config is another."""

    def change(metadata, _):
        config = yaml.safe_load(metadata["config"])
        *sections, last = key.split(".")
        node = config
        for section in sections:
            node = node[section]
        node[last] = value
        metadata["config"] = yaml.safe_dump(config)

    return change


def pixels(**said):
    return lambda metadata, _: metadata.update(pixels=json.dumps(json.loads(metadata["pixels"]) | said))


def tensor(name, make):
    return lambda _, tensors: tensors.update({name: make(tensors[name])})


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))

DAMAGE = {
    "no config": lambda metadata, _: metadata.pop("config"),
    "no class names": lambda metadata, _: metadata.pop("class_names"),
    "no backbone": lambda metadata, _: metadata.pop("backbone"),
    "another format": put("format", "vitune 9"),
    "config is a list": put("config", "- 1\n- 2\n"),
    "config is a text": put("config", "hello"),
    "config is empty": put("config", ""),
    "config is no YAML": put("config", "a: [1\nb: }"),
    "config runs Python": put("config", "!!python/object/apply:os.system ['touch CANARY']"),
    "config names Python": put("config", "DATA: !!python/name:os.system"),
    "config laughs": put("config", LAUGHS),
    "config is deep": put("config", "a: " + "[" * 5000),
    "config is its own part": put("config", "&a [*a]"),
    "config has a date": put("config", "DATA: {NAME: 2020-99-99}"),
    "section is a number": put("config", "DATA: 3\n"),
    "unknown key": setting("DATA.UNKNOWN", 3),
    "unknown method": setting("MODEL.TRANSFER_TYPE", "lroa"),
    "unknown backbone": setting("DATA.FEATURE", "vit_nothing"),
    "no backbone named": setting("DATA.FEATURE", ""),
    "rank of ten million": setting("MODEL.LORA.RANK", 10**7),
    "rank of 10**18": setting("MODEL.LORA.RANK", 10**18),
    "another rank": setting("MODEL.LORA.RANK", 3),
    "a million prompts": lambda metadata, tensors: (
        setting("MODEL.TRANSFER_TYPE", "prompt")(metadata, tensors),
        setting("MODEL.PROMPT.NUM_TOKENS", 10**9)(metadata, tensors),
    ),
    "a thousand hidden layers": setting("MODEL.MLP_NUM", 10**6),
    "huge images": setting("DATA.CROPSIZE", 4 * 10**6),
    "huge images and pixels": lambda metadata, tensors: (
        setting("DATA.CROPSIZE", 4 * 10**5)(metadata, tensors),
        pixels(size=[4 * 10**5, 4 * 10**5])(metadata, tensors),
    ),
    "class names are not JSON": put("class_names", "[cat"),
    "class names are numbers": put("class_names", "[1, 2, 3]"),
    "class names are one text": put("class_names", '"cat"'),
    "too few class names": put("class_names", '["cat"]'),
    "a million class names": put("class_names", json.dumps(["c"] * 10**6)),
    "deep class names": put("class_names", "[" * 10000),
    "pixels are a list": put("pixels", "[1]"),
    "pixels are a text": put("pixels", '"vpt"'),
    "std of zero": pixels(std=[0.0, 0.5, 0.5]),
    "std of nearly zero": pixels(std=[1e-200, 0.5, 0.5]),
    "mean is NaN": put("pixels", '{"size": [32, 32], "augment": "none", "mean": [NaN, 0, 0], "std": [1, 1, 1]}'),
    "mean of four": pixels(mean=[0.5] * 4),
    "other pixels": pixels(size=[64, 64]),
    "size is a text": pixels(size="32"),
    "a part of another type": pixels(antialias="yes"),
    "quality of a million": pixels(jpeg_quality=10**6),
    "unknown decoder": pixels(decoder="os.system"),
    "unknown interpolation": pixels(interpolation="magic"),
    "backbone is no hash": put("backbone", "touch CANARY"),
    "another backbone": put("backbone", "0" * 32),
    "without_files is a list": put("without_files", "[]"),
    "without_files is unknown": put("without_files", '{"MODEL.NOTHING": ""}'),
    "weights are NaN": tensor("head.last_layer.weight", lambda t: t * float("nan")),
    "weights are infinite": tensor("head.last_layer.bias", lambda t: t + float("inf")),
    "weights are integers": tensor("head.last_layer.weight", lambda t: t.to(torch.int32)),
    "a weight is missing": lambda _, tensors: tensors.pop("head.last_layer.weight"),
    "the head is missing": lambda _, tensors: [tensors.pop(n) for n in list(tensors) if n.startswith("head.")],
    "a weight too many": lambda _, tensors: tensors.update(extra=torch.ones(1)),
    "everything is missing": lambda _, tensors: (tensors.clear(), tensors.update(x=torch.ones(1))),
    "head of another width": tensor("head.last_layer.weight", lambda t: torch.ones(3, 65)),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_or_strange_tuned_files_are_one_error_that_names_them(saved, tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    path = changed(saved, tmp_path / "tuned.safetensors", DAMAGE[what])
    start = time.perf_counter()
    with pytest.raises(CheckpointError) as error:
        load_tuned(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 5000
    assert time.perf_counter() - start < 20
    assert not Path("CANARY").exists()


def test_what_is_right_is_read_whatever_version_wrote_it(saved, tmp_path):
    model = load_tuned(saved).model
    images = torch.randn(2, 3, 32, 32)
    old = changed(
        saved,
        tmp_path / "tuned.safetensors",
        lambda metadata, _: [metadata.pop("checksum"), metadata.pop("without_files")],
    )
    assert torch.equal(load_tuned(old).model(images), model(images))


def test_what_changed_on_disk_is_noticed(saved, tmp_path):
    whole, path = saved.read_bytes(), tmp_path / "tuned.safetensors"
    weight = whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:]
    for content in (weight, whole.replace(b"ALPHA: 8", b"ALPHA: 9"), whole.replace(b"cat", b"bat")):
        assert content != whole
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"tuned\.safetensors is damaged: its checksum does not match"):
            load_tuned(path)


def test_a_file_that_a_stranger_names_is_only_read_for_tensors(saved, tmp_path):
    """MODEL.WEIGHT_PATH in another's settings: a pickle that would run, and a TorchScript archive."""
    torch.save({"evil": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    for name in (str(tmp_path / "evil.pth"), str(CLIP), "/dev/zero", str(tmp_path)):
        path = changed(saved, tmp_path / "tuned.safetensors", setting("MODEL.WEIGHT_PATH", name))
        with pytest.raises((ValueError, FileNotFoundError), match=Path(name).name):
            load_tuned(path)
    assert not (tmp_path / "ran").exists()


def test_the_settings_of_a_call_are_the_callers_to_mend(saved):
    with pytest.raises(ConfigError, match=r"MODEL\.NOTHING"):
        load_tuned(saved, ["MODEL.NOTHING", "1"])


def test_answers_that_are_no_numbers_are_no_predictions(saved, tmp_path, capsys):
    huge = changed(saved, tmp_path / "tuned.safetensors", tensor("head.last_layer.weight", lambda t: t * 0 + 3e38))
    Image.fromarray(np.full((32, 32, 3), 200, np.uint8)).save(image := tmp_path / "image.png")
    assert predict.main([str(huge), str(image), "DEVICE", "cpu"]) == 1
    said = capsys.readouterr()
    assert "NaN or infinity" in said.err
    assert "image.png" in said.err
    assert "image.png" not in said.out
    assert predict.main([str(huge), str(image), "--to", str(to := tmp_path / "found.csv"), "DEVICE", "cpu"]) == 1
    assert not to.exists()
    for tool, arguments in ((export, ["--to", "onnx"]), (merge, [str(tmp_path / "merged")])):
        assert tool.main([str(huge), *arguments]) == 1
        assert "NaN or infinity" in capsys.readouterr().err
    with pytest.raises(BrokenModel, match="NaN or infinity"):
        measure(torch.tensor([[0.0, float("nan")]]), torch.tensor([0]))


# --- what is promised of a head


@pytest.mark.parametrize("make", [
    lambda: timm.create_model("deit_tiny_distilled_patch16_224", depth=1, num_classes=4),
    lambda: with_head(torch.nn.Sequential(torch.nn.Linear(32, 4))),
])  # fmt: skip
def test_a_head_that_cannot_be_kept_is_refused(make):
    with pytest.raises(ValueError, match=r"own head cannot be kept.*num_classes"):
        tune(make(), "lora")
    tune(make(), "lora", num_classes=4)
    with pytest.raises(ValueError, match="hidden layers"):
        tune(make_vit(num_classes=3), "lora", mlp_num=1)


def with_head(head):
    vit = make_vit(num_classes=3)
    vit.head = head
    return vit


def test_a_head_of_the_users_own_is_kept(images):
    vit = with_head(torch.nn.Linear(32, 11, bias=False))
    torch.testing.assert_close(tune(vit, "lora").eval()(images), vit(images), atol=1e-6, rtol=0)
    for name in ("swin_tiny_patch4_window7_224", "convnext_atto"):
        network = timm.create_model(name, num_classes=4, **({"head_hidden_size": 8} if "conv" in name else {})).eval()
        torch.testing.assert_close(tune(network, "linear").eval()(BIG), network(BIG), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: torch.nn.DataParallel(make_vit()), r"inside a DataParallel: give \.module"),
        (lambda: torch.compile(make_vit()), r"give \._orig_mod"),
        (lambda: timm.create_model(TINY, features_only=True), "without features_only"),
        (lambda: timm.create_model("convnext_atto", features_only=True), "without features_only"),
        (lambda: "vit", "is a str"),
        (lambda: torch.nn.Sequential(), "is a Sequential"),
    ],
)
def test_networks_that_are_wrapped_or_cut_say_what_to_give(make, said, tmp_path):
    for call in (lambda vit: tune(vit, "lora"), lambda vit: load(tmp_path / "tuned.safetensors", vit)):
        with pytest.raises(ValueError, match=said):
            call(make())


# --- adapters of peft, allocations, and what else lies in a run's folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A LoRA of rank 2 on one linear map of the tiny ViT's blocks, as peft saves it."""
    folder = tmp_path_factory.mktemp("adapter")
    model = make_model("peft", MODEL__PEFT__TARGETS=["attn.proj"], MODEL__PEFT__KWARGS=CfgNode({"r": 2}))
    randomise(model)
    model.methods["peft"].export(model.vit, folder / "peft")
    return folder / "peft"


def adapter_config(**said):
    return lambda folder: (folder / "adapter_config.json").write_text(
        json.dumps(json.loads((folder / "adapter_config.json").read_text()) | said)
    )


def adapter_text(text):
    return lambda folder: (folder / "adapter_config.json").write_text(text)


def adapter_weights(change):
    def write(folder):
        state = parts(folder / "adapter_model.safetensors")[1]
        save_file(change(state), folder / "adapter_model.safetensors")

    return write


def evil_adapter(folder):
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"evil": Evil(folder / "CANARY")}, folder / "adapter_model.bin")


BROKEN_ADAPTERS = {
    "no JSON": adapter_text("{"),
    "a list": adapter_text("[]"),
    "deep": adapter_text("[" * 10**5),
    "not UTF-8": lambda folder: (folder / "adapter_config.json").write_bytes(b"\xff\xfe{"),
    "no type": adapter_text("{}"),
    "type is a list": adapter_config(peft_type=["LORA"]),
    "unknown type": adapter_config(peft_type="os.system"),
    "rank is a text": adapter_config(r="two"),
    "rank is a list": adapter_config(r=[2]),
    "rank of a billion": adapter_config(r=10**9),
    "rank of ten million": adapter_config(r=10**7),
    "negative rank": adapter_config(r=-1),
    "imports code": adapter_config(megatron_config={"a": 1}, megatron_core="antigravity.core"),
    "targets are a number": adapter_config(target_modules=3),
    "targets nowhere": adapter_config(target_modules=["nothing"]),
    "targets for ever": adapter_config(target_modules="([a-z.0-9]+)+X"),
    "targets for ever too": adapter_config(target_modules="(.|[a-z0-9.])*X"),
    "targets are no pattern": adapter_config(target_modules="(((("),
    "init from data": adapter_config(init_lora_weights="eva"),
    "no weights": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "weights are text": lambda folder: (folder / "adapter_model.safetensors").write_text("hello"),
    "weights are cut": lambda folder: (folder / "adapter_model.safetensors").write_bytes(
        (folder / "adapter_model.safetensors").read_bytes()[:-7]
    ),
    "weights run code": evil_adapter,
    "weights are missing": adapter_weights(lambda state: dict(list(state.items())[1:])),
    "weights are NaN": adapter_weights(lambda state: {name: t * float("nan") for name, t in state.items()}),
    "weights of another rank": adapter_weights(lambda state: {name: torch.cat((t, t)) for name, t in state.items()}),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN_ADAPTERS)
def test_damaged_or_strange_adapters_are_one_error(adapter, tmp_path, what):
    shutil.copytree(adapter, folder := tmp_path / "adapter")
    BROKEN_ADAPTERS[what](folder)
    start = time.perf_counter()
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        make_model("peft", MODEL__PEFT__LOAD=str(folder))
    assert not isinstance(error.value, (UnicodeDecodeError, json.JSONDecodeError))
    assert time.perf_counter() - start < 20
    assert "antigravity" not in sys.modules
    assert not (folder / "CANARY").exists()


def test_what_an_adapter_says_of_classes_and_code_is_not_looked_at(adapter, tmp_path, images):
    shutil.copytree(adapter, folder := tmp_path / "adapter")
    right = make_model("peft", MODEL__PEFT__LOAD=str(adapter))
    adapter_config(
        auto_mapping={"base_model_class": "X", "parent_library": "antigravity"},
        base_model_name_or_path="https://example.com/model",
        trust_remote_code=True,
    )(folder)
    assert torch.equal(make_model("peft", MODEL__PEFT__LOAD=str(folder)).features(images), right.features(images))
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("change", [
    lambda metadata, tensors: tensors.update(masked=torch.tensor([3, 1], dtype=torch.int32)),
    lambda metadata, tensors: tensors.update(masked=torch.tensor([-1], dtype=torch.int32)),
    lambda metadata, tensors: tensors.update(masked=torch.tensor([10**9], dtype=torch.int32)),
    lambda metadata, tensors: tensors.update(structured=torch.tensor([10**6])),
    lambda metadata, tensors: tensors.update(structured=torch.ones(2)),
    lambda metadata, tensors: tensors.update(fits=torch.ones(2, 2, dtype=torch.int64)),
    lambda metadata, tensors: tensors.pop("fits"),
    lambda metadata, tensors: metadata.update(about="["),
    lambda metadata, tensors: metadata.update(about="[" * 10**5),
    lambda metadata, tensors: metadata.update(about="[]"),
])  # fmt: skip
def test_a_damaged_allocation_is_one_error(tmp_path, change):
    vit = make_vit()
    right = make_allocation(vit, METHODS["spt_lora"].rules(make_cfg().MODEL.SPT_LORA, vit))
    path = changed(Path(right), tmp_path / "allocation.safetensors", change)
    with pytest.raises(ValueError, match=r"allocation\.safetensors"):
        Allocation.load(path)


@pytest.mark.parametrize("content", [
    b"", b"{", b"[1]", b"3", b"\xff\xfe", b"[" * 10**5, b'{"test": null}',
    b'{"test": 3, "val": null, "config": {}, "seed": 1}',
    b'{"test": {"top1": "high", "images": 3}, "val": null, "config": {}, "seed": 1}',
    b'{"test": {"top1": NaN, "images": 3}, "val": null, "config": {}, "seed": 1}',
    b'{"test": {"top1": 0.5, "images": 3}, "val": null, "config": {}, "seed": 1, "parameters": []}',
])  # fmt: skip
def test_a_damaged_result_is_one_error_that_names_it(tmp_path, content):
    (folder := RunFolder(tmp_path)).result.write_bytes(content)
    with pytest.raises(ValueError, match=r"result\.json"):
        folder.read_result()
    folder.metrics.write_bytes(content + b"\n" + content)
    if content and not content.startswith(b'{"'):
        with pytest.raises(ValueError, match=r"metrics\.jsonl"):
            read_json_lines(folder.metrics)


# --- damage by chance: many kinds of file, cut, flipped and mixed, in a process with little memory


def mangled(content, random):
    """Some bytes of a file are others."""
    content, kind = bytearray(content), random.randrange(6)
    at = random.randrange(len(content))
    if kind == 0:
        return bytes(content[:at])
    if kind == 1:  # the start, where headers are
        at = random.randrange(min(len(content), 512))
    if kind == 2:
        content[at : at + random.randrange(1, 64)] = random.randbytes(random.randrange(64))
    elif kind == 3:
        content[at : at + 8] = (2 ** random.randrange(8, 63)).to_bytes(8, "little")
    elif kind == 4:
        some = bytes(content[at : at + 200])
        content[random.randrange(len(content)) :][:200] = some
    else:
        content[at] ^= 1 << random.randrange(8)
    return bytes(content)


def fuzz(cases, read, right, path, seed, times):
    """Read damaged copies of files; what came out that is neither one clear error nor a right result."""
    random, bad = Random(seed), []
    for name, content in cases.items():
        for _ in range(times):
            damaged = mangled(content, random)
            path.write_bytes(damaged)
            try:
                found = read(path, name)
            except (ValueError, FileNotFoundError) as error:
                if path.name not in str(error) and str(path.parent) not in str(error):
                    bad.append(f"{name}: {type(error).__name__} without a name: {error}"[:300])
                continue
            except Exception as error:
                bad.append(f"{name}: {type(error).__name__}: {error}"[:300])
                continue
            if not right(found, name):
                bad.append(f"{name}: another result, silently")
    return bad


def weights_to_fuzz(folder):
    """A tiny ViT in every format of weights."""
    vit = make_vit(depth=1, num_heads=1)
    state = dict(vit.state_dict())
    torch.save({"model": state}, folder / "zip")
    torch.save(state, folder / "legacy", _use_new_zipfile_serialization=False)
    save_file(state, folder / "safetensors")
    np.savez(folder / "npz", **{name: tensor.numpy() for name, tensor in state.items()})
    np.savez_compressed(folder / "npz compressed", **{name: tensor.numpy() for name, tensor in state.items()})
    (folder / "npz.npz").rename(folder / "npz")
    (folder / "npz compressed.npz").rename(folder / "npz compressed")
    torch.jit.script(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))).save(folder / "script")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    wanted = {name: sums(read_state(folder / name, "model")) for name in files}
    return files, wanted


def sums(state):
    return {name: tensor.double().sum().item() for name, tensor in state.items()}


# Formats without checksums, whose values nobody can know to be damaged.
UNCHECKED = ("legacy", "safetensors")


def main(seed, times):
    """In a process of its own: its peak memory is looked at."""
    folder = Path(tempfile.mkdtemp())
    files, wanted = weights_to_fuzz(folder)

    def read(path, name):
        with reading(path, name):
            return sums(read_state(path, "model"))

    def right(found, name):
        if name in UNCHECKED:
            return True
        return found == wanted[name] or found.keys() != wanted[name].keys()  # the strict load finds those

    before = peak()
    bad = fuzz(files, read, right, folder / "damaged", seed, times)
    bad += fuzz_tuned(folder, seed, times)
    shutil.rmtree(folder)
    print(json.dumps({"bad": bad, "megabytes": peak() - before}))


def peak():
    """Megabytes that this process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def fuzz_tuned(folder, seed, times):
    vit = make_vit()
    model = tune(vit, "lora", num_classes=3)
    save(model, path := folder / "tuned.safetensors")
    save_last(
        last := folder / "last.ckpt",
        model,
        optimizer := torch.optim.SGD(model.parameters()),
        scaler := GradScaler(enabled=False),
        {},
    )
    wanted = model.eval()(images := torch.randn(1, 3, 32, 32))

    def again(path, _):
        return load(path, vit)(images)

    def go_on(path, _):
        load_last(path, model, optimizer, scaler)
        return model(images)

    def right(found, _):
        return torch.equal(found, wanted)

    tuned = {"tuned": path.read_bytes()}
    return fuzz(tuned, again, right, folder / "other.safetensors", seed, times) + fuzz(
        {"last": last.read_bytes()}, go_on, right, folder / "other.ckpt", seed, times
    )


def test_damage_by_chance_is_one_clear_error_or_a_right_result():
    done = run_program("-c", "import test_foreign_files; test_foreign_files.main(1, 30)", timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["bad"] == []
    assert found["megabytes"] < 400
