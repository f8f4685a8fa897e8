"""Files from anywhere: a right result or one clear error that names the file; no code of theirs runs."""

import argparse
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import make_vit
from safetensors.torch import save_file
from test_parity import PARITY

from src.models.vit_backbones import convert, zoo
from src.models.vit_backbones.tensors import NotOnlyTensors, read_content, read_state
from src.models.vit_backbones.zoo import build_backbone, load_weights

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
    ours = zoo._timm_filter(name)
    for found in (seen[0], ours):
        assert getattr(found, "keywords", {}) == keywords
    assert getattr(seen[0], "func", seen[0]) is getattr(ours, "func", ours)


def test_weights_that_timm_fetched_must_be_whole(tmp_path, tiny, monkeypatch):
    lost = {name: tensor for name, tensor in tiny.items() if name != "blocks.2.norm1.weight"}
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
