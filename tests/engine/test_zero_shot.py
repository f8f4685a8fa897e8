"""CLIP's zero-shot head, on a tiny CLIP in OpenAI's file formats, against open_clip's own towers and classifier."""

import warnings
from pathlib import Path

import pytest
import torch
from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES, build_zero_shot_classifier, get_tokenizer
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, convert_weights_to_fp16

from src.configs.config import ConfigError, load_cfg
from src.data.opened import open_data
from src.data.sources.lists import imagenet_synsets
from src.engine import zero_shot
from src.engine.checkpoint import load_tuned
from src.engine.evaluator import evaluate, measure
from src.engine.precision import autocast
from src.engine.results import run_folder
from src.engine.run import run
from src.engine.zero_shot import spoken_names, templates, zero_shot_head
from src.models.vit_backbones import convert
from src.models.vit_backbones.backbone import OPENAI, Backbone
from src.models.vit_backbones.zoo import MODEL_ZOO
from src.models.vit_models import build_model
from src.tools.robustness import __main__ as robustness
from src.tools.wise import __main__ as wise
from src.utils.io import read_json

TEXTS = "a photo of the number {}.\na {}, by hand\n{}\n"


def tiny_clip() -> CLIP:
    torch.manual_seed(5)
    vision = CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=8, image_size=32)
    model = CLIP(24, vision, CLIPTextCfg(width=128, heads=2, layers=2), quick_gelu=True).eval()
    for name, param in model.named_parameters():
        if name != "logit_scale":
            param.data.add_(0.05 * torch.randn_like(param))
    model.logit_scale.data.fill_(3.0)
    return model


@pytest.fixture(scope="module")
def clip() -> CLIP:
    return tiny_clip()


@pytest.fixture
def file(tmp_path, monkeypatch, clip) -> Path:
    """The tiny CLIP's weights, and a row of the zoo that reads such files."""
    arch, sizes = "vit_base_patch16_clip_quickgelu_224", dict(patch_size=8, embed_dim=64, depth=2, num_heads=2)
    url = "https://clip.example/tiny.pt"
    row = Backbone(arch, ("tiny.pt",), convert.clip, url, "mit", mean_std=OPENAI, has_text=True, arguments=sizes)
    monkeypatch.setitem(MODEL_ZOO, "clip_tiny", row)
    torch.save(clip.state_dict(), tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


def config(file: Path, *pairs: str):
    (file.parent / "texts.txt").write_text(TEXTS)
    return load_cfg("", [
        "DATA.NAME", "digits", "DATA.FEATURE", "clip_tiny", "DATA.CROPSIZE", "32", "DATA.PIXELS", "backbone",
        "DATA.PERCENTAGE", "0.05", "DATA.TRAIN_SPLIT", "train", "DATA.CACHE_DIR", str(file.parent / "cache"),
        "MODEL.MODEL_ROOT", str(file.parent), "MODEL.HEAD_INIT", "zero_shot", "MODEL.SIDE.WEIGHTS", "",
        "MODEL.HEAD_TEMPLATES", str(file.parent / "texts.txt"), "MODEL.TRANSFER_TYPE", "lora",
        "SOLVER.OPTIMIZER", "adamw", "SOLVER.BASE_LR", "0.003", "SOLVER.TOTAL_EPOCH", "2", "SOLVER.WARMUP_EPOCH", "0",
        "OUTPUT_DIR", str(file.parent / "output"), *pairs,
    ])  # fmt: skip


def expected_weights(clip: CLIP, names: list[str], texts: list) -> torch.Tensor:
    return build_zero_shot_classifier(clip, get_tokenizer("ViT-B-32"), names, texts).T * clip.logit_scale.exp()


def test_logits_are_open_clips(file, clip):
    cfg = config(file)
    names = [str(i) for i in range(10)]
    model = build_model(cfg, 10, head=zero_shot_head(cfg, names)).eval()
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        classifier = expected_weights(clip, names, TEXTS.splitlines())
        expected = clip.encode_image(images, normalize=True) @ classifier.T
        torch.testing.assert_close(model(images), expected, atol=2e-5, rtol=0)
    assert model.num_trained()["head"] == 64 * 24 + 24 * 10 + 10


def test_imagenets_80_texts_and_names_are_open_clips(file, clip):
    cfg = config(file, "MODEL.HEAD_TEMPLATES", "imagenet", "DATA.NAME", "imagenet")
    texts = templates("imagenet")
    assert len(texts) == 80
    assert [text.replace("{}", "x") for text in texts] == [fill("x") for fill in OPENAI_IMAGENET_TEMPLATES]
    synsets = list(imagenet_synsets())
    for classes in (synsets, [str(i) for i in range(1000)]):
        assert spoken_names(cfg, classes) == list(IMAGENET_CLASSNAMES)
    head = zero_shot_head(config(file, "MODEL.HEAD_TEMPLATES", "imagenet"), ["great_owl", "n01440764", "crane"])
    expected = expected_weights(clip, ["great owl", "tench", "crane"], OPENAI_IMAGENET_TEMPLATES)
    torch.testing.assert_close(head["last_layer.weight"], expected.detach(), atol=2e-5, rtol=0)


def test_half_precision_archives_are_read_like_state_dicts(file, tmp_path):
    half = tiny_clip()
    convert_weights_to_fp16(half)
    torch.save(half.state_dict(), file)
    plain = zero_shot_head(config(file), ["a", "b"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(
            tiny_clip(), (torch.zeros(1, 3, 32, 32), torch.zeros(1, 77, dtype=int)), check_trace=False
        )
        for name, param in traced.named_parameters():
            param.data = half.state_dict()[name].clone()
        traced.save(tmp_path / "archive.pt")
    archive = zero_shot_head(config(file, "MODEL.WEIGHT_PATH", str(tmp_path / "archive.pt")), ["a", "b"])
    for name, tensor in plain.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(archive[name], tensor), name


def test_a_head_is_encoded_once_and_again_when_anything_changes(file, monkeypatch):
    made = []
    encode = zero_shot._encode
    monkeypatch.setattr(zero_shot, "_encode", lambda *facts: made.append(facts) or encode(*facts))
    first = zero_shot_head(config(file), ["a", "b"])
    again = zero_shot_head(config(file, "SEED", "1"), ["a", "b"])
    assert len(made) == 1
    assert all(torch.equal(first[name], again[name]) for name in first)
    zero_shot_head(config(file), ["b", "a"])
    zero_shot_head(config(file, "MODEL.HEAD_TEMPLATES", "{}"), ["a", "b"])
    zero_shot_head(config(file, "DATA.CACHE", "off"), ["a", "b"])
    assert len(made) == 4
    for kept in (file.parent / "cache").glob("*.safetensors"):
        kept.write_bytes(kept.read_bytes()[:100])
    assert torch.equal(zero_shot_head(config(file), ["a", "b"])["last_layer.weight"], first["last_layer.weight"])
    state = torch.load(file)
    torch.save(state | {"logit_scale": torch.tensor(0.0)}, file)
    colder = zero_shot_head(config(file), ["a", "b"])
    torch.testing.assert_close(colder["last_layer.weight"].norm(dim=1), torch.ones(2))
    assert len(made) == 6


def test_a_run_starts_there_says_so_and_is_read_back_without_a_text_tower(file, clip):
    cfg = config(file, "FREQFIT", "freqfit")  # which does not start at the pre-trained model
    folder = run_folder(cfg)
    result = run(cfg, folder)
    assert result["zero_shot"] == read_json(folder.result)["zero_shot"]

    plain = config(file, "MODEL.TRANSFER_TYPE", "linear")
    data = open_data(plain)
    loaders, _ = data.loaders(plain, "cpu")
    classifier = expected_weights(clip, data.class_names, TEXTS.splitlines())
    for name in ("val", "test"):
        with torch.no_grad():
            batches = [
                (clip.encode_image(images, normalize=True) @ classifier.T, labels)
                for images, labels in loaders[name].in_order()
            ]
        expected = measure(*map(torch.cat, zip(*batches, strict=True)))
        assert result["zero_shot"][name] == pytest.approx(expected.as_dict(), rel=1e-4)

    only_images = {k: v for k, v in torch.load(file).items() if k.startswith("visual.")}
    torch.save(only_images, file)
    (file.parent / "texts.txt").unlink()
    tuned = load_tuned(folder.path)
    again = evaluate(tuned.model, loaders["test"], autocast(cfg, torch.device("cpu"))).as_dict()
    assert again == pytest.approx(result["test"])


def test_ensembles_and_robustness_start_from_the_zero_shot_model(file):
    cfg = config(file, "FREQFIT", "freqfit", "SOLVER.BASE_LR", "0.01")
    folder = run_folder(cfg)
    result = run(cfg, folder)
    ends = result["zero_shot"]["test"]["top1"], result["test"]["top1"]
    assert ends[0] != ends[1]
    arguments = [str(folder.path), "--shift", "inversion", "--to", str(file.parent / "out")]
    assert wise.main([*arguments, "--alphas", "0 1"]) == 0
    (found,) = read_json(file.parent / "out" / "wise.json")["curves"]
    assert found["head_at_alpha_0"] == "zero-shot"
    assert [at["top1"] for at in found["test"]["digits"]] == pytest.approx(ends)
    assert robustness.main(arguments) == 0
    rows = {row["label"]: row["test"][0] for row in read_json(file.parent / "out" / "robustness.json")["rows"]}
    assert rows["zero-shot"]["digits"]["top1"] == pytest.approx(ends[0])
    assert rows["zero-shot"]["inversion 1"]["top1"] == pytest.approx(found["test"]["inversion 1"][0]["top1"])
    assert rows["lora+freqfit"]["digits"]["top1"] == pytest.approx(ends[1])


def test_a_saved_run_gives_its_logits_again(file):
    cfg = config(file, "DATA.NO_TEST", "True")
    folder = run_folder(cfg)
    run(cfg, folder)
    tuned = load_tuned(folder.path)
    head = zero_shot_head(cfg, tuned.class_names)
    moved = {name: (tensor - head[name]).abs().max() for name, tensor in tuned.model.head.state_dict().items()}
    assert all(moved[name] > 0 for name in moved), moved  # projection, weight and bias all trained
    assert read_json(folder.result)["zero_shot"]["test"] is None


# --- names and texts


def test_names_are_put_into_plain_words(file, caplog):
    names = ["001.Black_footed_Albatross", "n02085620-Chihuahua", "golden_retriever", "3.5_inch_disk", " x {} "]
    plain = ["Black footed Albatross", "Chihuahua", "golden retriever", "3.5 inch disk", "x {}"]
    cfg = config(file, "DATA.NAME", "folder", "DATA.DATAPATH", ".")
    assert spoken_names(cfg, names) == plain
    assert not caplog.records
    assert spoken_names(cfg, ["0", "1", "2"]) == ["0", "1", "2"]
    assert "set MODEL.HEAD_CLASS_NAMES to name them" in caplog.text


def test_names_from_a_file(file, tmp_path):
    (tmp_path / "names.txt").write_text("nought\n\none\r\ntwo words_here \n", encoding="utf-8-sig")
    cfg = config(file, "MODEL.HEAD_CLASS_NAMES", str(tmp_path / "names.txt"))
    assert spoken_names(cfg, ["0", "1", "2"]) == ["nought", "one", "two words_here"]
    with pytest.raises(ValueError, match=r"names\.txt has 3 names for 4 classes"):
        spoken_names(cfg, ["0", "1", "2", "3"])


def test_texts_too_long_for_the_tower_and_names_in_any_script_are_encoded(file):
    head = zero_shot_head(config(file), ["word " * 200, "犬", "Größe: «ß»"])
    assert torch.isfinite(head["last_layer.weight"]).all()
    torch.testing.assert_close(head["last_layer.weight"].norm(dim=1), torch.full((3,), 3.0).exp())


# --- what cannot be done is said before any data are read


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["DATA.FEATURE", "vit_micro_glyphs"], "zero_shot needs CLIP's text tower, and vit_micro_glyphs has none"),
        (["MODEL.MLP_NUM", "1"], "no place for hidden layers in the head"),
        (["MODEL.TRANSFER_TYPE", "lora+vqt"], "zero_shot and vqt do not go together"),
        (["HEAD.INIT", "zero_short"], "MODEL.HEAD_INIT is 'zero_short'"),
    ],
)
def test_settings_that_do_not_go_together(file, pairs, said):
    with pytest.raises(ConfigError, match=said):
        config(file, *pairs)


@pytest.mark.parametrize(
    ("content", "pairs", "said"),
    [
        ("nothing here\n", [], "'nothing here' has no {} where the class name goes"),
        ("", [], r"texts\.txt is empty"),
        (
            TEXTS,
            ["MODEL.HEAD_TEMPLATES", "a photo of a"],
            "a photo of a is missing; it may also be imagenet, or a text",
        ),
        (TEXTS, ["MODEL.HEAD_CLASS_NAMES", "nowhere.txt"], "MODEL.HEAD_CLASS_NAMES nowhere.txt is missing"),
        (TEXTS, ["MODEL.HEAD_CLASS_NAMES", "README.md"], "names for 10 classes"),
        (TEXTS, ["MODEL.HEAD_CLASS_NAMES", "docs/pages/pictures/digits.png"], "is not UTF-8 text"),
    ],
)
def test_files_that_do_not_fit_stop_a_run_before_its_data(file, monkeypatch, content, pairs, said):
    monkeypatch.setattr("src.engine.shared.open_data", lambda cfg: pytest.fail("data were read"))
    cfg = config(file, *pairs)
    (file.parent / "texts.txt").write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        run(cfg, run_folder(cfg))


@pytest.mark.parametrize("kept", ["visual.", "token_embedding", ""])
def test_weights_without_a_text_tower_stop_a_run_before_its_data(file, monkeypatch, kept):
    monkeypatch.setattr("src.engine.shared.open_data", lambda cfg: pytest.fail("data were read"))
    state = {name: tensor for name, tensor in torch.load(file).items() if kept and name.startswith(kept)}
    torch.save(state, file)
    if not kept:
        file.write_bytes(b"PK nothing")
    cfg = config(file)
    reason = "is not a complete CLIP|is broken, or not a file of OpenAI's CLIP"
    with pytest.raises(ValueError, match=rf"tiny\.pt ({reason})"):
        run(cfg, run_folder(cfg))


def test_a_wordnet_id_that_nobody_can_say(file):
    cfg = config(file, "DATA.NAME", "folder", "DATA.DATAPATH", ".")
    with pytest.raises(ValueError, match=r"n00000001 is a WordNet id.*MODEL\.HEAD_CLASS_NAMES"):
        spoken_names(cfg, ["n01440764", "n00000001"])


def test_another_name_for_the_key(file, caplog):
    assert config(file, "MODEL.HEAD_INIT", "zero", "HEAD.INIT", "zero_shot").MODEL.HEAD_INIT == "zero_shot"
    assert not caplog.records
