"""Pixels: every kind of file becomes RGB, and each pipeline gives what the original code's libraries give."""

import io

import numpy as np
import pytest
import torch
from conftest import make_cfg
from image_sets import GRADIENT, JPEG, PHOTO, encoded, make_pixels
from PIL import Image
from torch.nn import functional as F
from torchvision import transforms as tv

from src.configs.config import ConfigError, load_cfg
from src.data.pixels import (
    PRESETS,
    PROTOCOLS,
    Pixels,
    build_pixels,
    center_crop,
    decode,
    normalise,
    pixels_from,
    resize,
    shorter_side,
)
from src.models.vit_backbones.backbone import IMAGENET, OPENAI

# --- decoding


KINDS = {
    "grey": (encoded(GRADIENT, "PNG"), 0),
    "rgb": (encoded(GRADIENT.convert("RGB"), "PNG"), 0),
    "rgba": (encoded(GRADIENT.convert("RGBA"), "PNG"), 0),
    "grey+alpha": (encoded(GRADIENT.convert("LA"), "PNG"), 0),
    "palette": (encoded(GRADIENT.convert("P"), "PNG"), 0),
    "gif": (encoded(GRADIENT.convert("P"), "GIF"), 0),
    "bmp": (encoded(GRADIENT.convert("RGB"), "BMP"), 0),
    "webp": (encoded(GRADIENT.convert("RGB"), "WEBP", lossless=True), 0),
    "cmyk": (encoded(GRADIENT.convert("RGB").convert("CMYK"), "JPEG", quality=90), 3),
    "jpeg": (encoded(GRADIENT.convert("RGB"), "JPEG", quality=90), 3),
    "grey jpeg": (encoded(GRADIENT, "JPEG", quality=90), 3),
    "progressive": (encoded(GRADIENT, "JPEG", quality=90, progressive=True), 3),
    "16-bit png": (encoded(Image.fromarray(np.asarray(GRADIENT).astype(np.uint16) * 257), "PNG"), 0),
    "16-bit tiff": (encoded(Image.fromarray(np.asarray(GRADIENT).astype(np.uint16) * 257), "TIFF"), 0),
    "array": (np.asarray(GRADIENT), 0),
    "array with a channel": (np.asarray(GRADIENT)[..., None], 0),
}


@pytest.mark.parametrize("decoder", ["pil", "tf"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_becomes_the_same_rgb(kind, decoder):
    raw, atol = KINDS[kind]
    pixels = decode(raw, decoder)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(GRADIENT).astype(int)[..., None]).max() <= atol


@pytest.mark.parametrize("decoder", ["pil", "tf"])
def test_exif_rotation_is_not_applied(decoder):
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = encoded(Image.new("RGB", (20, 10)), "JPEG", exif=exif)
    assert decode(raw, decoder).shape == (10, 20, 3)


@pytest.mark.parametrize("decoder", ["pil", "tf"])
def test_half_a_file_is_an_error(decoder):
    with pytest.raises((OSError, ValueError)):
        decode(JPEG[: len(JPEG) // 2], decoder)


def test_what_follows_an_image_does_no_harm():
    np.testing.assert_array_equal(decode(JPEG + b"\0\0appended", "pil"), decode(JPEG, "pil"))
    np.testing.assert_array_equal(decode(JPEG + b"\0\0appended", "tf"), decode(JPEG, "tf"))


@pytest.mark.parametrize("decoder", ["pil", "tf"])
def test_jpeg_quality_gives_the_pixels_of_the_shared_folders(decoder):
    """As those were made: Pillow's JPEG with its default quality, from the decoded image."""
    raw = encoded(PHOTO, "PNG")
    again = encoded(PHOTO, "JPEG", quality=75)
    pixels = make_pixels(decoder=decoder, jpeg_quality=75)
    assert torch.equal(pixels.prepare(raw), make_pixels(decoder=decoder).prepare(again))
    assert not torch.equal(pixels.prepare(raw), make_pixels(decoder=decoder).prepare(raw))
    assert pixels.recipe(train=True) != make_pixels(decoder=decoder).recipe(train=True)
    cfg = make_cfg(DATA__JPEG_QUALITY=75, DATA__NAME="cifar100", DATA__FEATURE="sup_vitb16_imagenet21k")
    assert build_pixels(cfg, "vtab").jpeg_quality == 75


def test_the_fast_decoder_differs_from_pillows_a_little():
    difference = np.abs(decode(JPEG, "tf").astype(int) - decode(JPEG, "pil").astype(int))
    assert 0.2 < difference.mean() < 2
    assert difference.max() <= 30


# --- resizing


def tf1(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What ``tf.compat.v1.image.resize`` computes: output i reads input position i * N / n, which it has in float32."""
    for axis, wanted in enumerate(size):
        have = pixels.shape[axis]
        at = np.arange(wanted, dtype=np.float32) * (np.float32(have) / np.float32(wanted))
        low = np.floor(at).astype(int)
        share = (at - low).reshape(-1, *(1,) * (2 - axis))
        low_values, high_values = (pixels.take(np.minimum(i, have - 1), axis).astype(float) for i in (low, low + 1))
        pixels = low_values + (high_values - low_values) * share
    return pixels


# (from, to): smaller, larger, one of each, odd, not square, one row, equal, and what the 19 tasks come in.
SIZES = [((8, 8), (4, 4)), ((5, 7), (11, 3)), ((1, 9), (4, 4)), ((9, 1), (5, 20)), ((224, 300), (224, 224))]
SIZES += [((side, side), (224, 224)) for side in (32, 64, 72, 96, 224, 256)]
SIZES += [((320, 480), (224, 224)), ((375, 1242), (224, 224)), ((375, 500), (384, 384)), ((243, 162), (48, 160))]


@pytest.mark.parametrize("content", ["noise", "binary", "photo"])
@pytest.mark.parametrize(("side", "size"), SIZES)
def test_vpts_resize_is_that_of_tensorflow_1(side, size, content):
    if content == "photo":
        pixels = np.array(PHOTO.resize(side[::-1]))
    else:
        pixels = np.random.RandomState(0).randint(0, 256, (*side, 3), dtype=np.uint8)
    if content == "binary":
        pixels = 255 * (pixels > 127).astype(np.uint8)
    exact = torch.from_numpy(tf1(pixels, size)).permute(2, 0, 1)
    found = resize(pixels, size, "bilinear_tf1", antialias=False, dtype="float32")
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-4)
    rounded = resize(pixels, size, "bilinear_tf1", antialias=False)
    assert rounded.dtype == torch.uint8
    assert (rounded.double() - exact).abs().max() <= 0.5 + 1e-4
    assert rounded.is_contiguous()
    assert found.is_contiguous()


def test_tensorflow_1_and_2_read_other_pixels():
    ramp = np.tile(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], (8, 1, 3))  # 24 wide, 10 more in each column
    first = resize(ramp, (8, 6), "bilinear_tf1", False, "float32")[0, 0]
    second = resize(ramp, (8, 6), "bilinear", False, "float32")[0, 0]
    assert first.tolist() == [0, 40, 80, 120, 160, 200]  # columns 0, 4, 8, ...
    assert second.tolist() == [15, 55, 95, 135, 175, 215]  # columns 1.5, 5.5, 9.5, ...


@pytest.mark.parametrize("size", [(224, 224), (32, 32), (500, 96)])
@pytest.mark.parametrize("side", [(640, 427), (64, 64), (300, 224)])
def test_tensorflow_2s_resize_within_one_level(size, side):
    pixels = np.array(PHOTO.resize(side))
    exact = F.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), size, mode="bilinear", align_corners=False
    )[0]
    rounded = resize(pixels, size, "bilinear", antialias=False)
    assert rounded.dtype == torch.uint8
    assert (rounded - exact).abs().max() <= 1
    assert (rounded - exact).abs().mean() <= 0.3
    torch.testing.assert_close(resize(pixels, size, "bilinear", False, "float32"), exact, rtol=0, atol=4e-4)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_antialiased_resize_is_pillows_to_the_bit(interpolation):
    expected = np.asarray(PHOTO.resize((224, 160), Image.Resampling[interpolation.upper()]))
    found = resize(np.asarray(PHOTO), (160, 224), interpolation, antialias=True)
    np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), expected)
    exact = resize(np.asarray(PHOTO), (160, 224), interpolation, True, "float32")
    assert (exact - found).abs().max() < 3
    assert exact.min() >= 0
    assert exact.max() <= 255 + 1e-3


def test_bilinear_without_antialiasing_reads_the_nearest_pixels():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[::2] = 200  # rows alternate: halving reads between rows 0|1, 2|3, ... and sees their mean
    assert resize(pixels, (4, 4), "bilinear", False).unique().tolist() == [100]
    assert torch.equal(resize(pixels, (8, 8), "bilinear", False).permute(1, 2, 0), torch.from_numpy(pixels))


@pytest.mark.parametrize("side", [(640, 427), (427, 640), (300, 301), (1242, 375), (224, 224)])
def test_crop_is_torchvisions_resize_and_center_crop(side):
    image = PHOTO.resize(side)
    raw = encoded(image, "PNG")
    pipeline = tv.Compose([tv.Resize(256, tv.InterpolationMode.BILINEAR), tv.CenterCrop(224)])
    found = make_pixels(resize="crop", antialias=True, augment="crop_flip").prepare(raw)
    np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), np.asarray(pipeline(image)))


def test_squash_crop_is_spts():
    pipeline = tv.Compose([tv.Resize((256, 256), tv.InterpolationMode.BICUBIC), tv.CenterCrop(224)])
    pixels = make_pixels(resize="squash_crop", interpolation="bicubic", antialias=True)
    np.testing.assert_array_equal(
        pixels.prepare(JPEG).permute(1, 2, 0).numpy(), np.asarray(pipeline(Image.open(io.BytesIO(JPEG))))
    )


def test_images_too_narrow_to_crop_from_are_enlarged():
    assert shorter_side((10, 14), 5, (5, 5)) == (5, 7)
    assert shorter_side((10, 14), 5, (5, 21)) == (15, 21)
    assert shorter_side((3, 2000), 256, (224, 224)) == (256, 170666)


def test_center_crop():
    pixels = torch.arange(3 * 10 * 14).reshape(3, 10, 14)
    assert torch.equal(center_crop(pixels, (6, 6)), pixels[:, 2:8, 4:10])


@pytest.mark.parametrize("augment", ["none", "flip", "crop_flip", "rrc_flip"])
@pytest.mark.parametrize("geometry", ["squash", "crop", "squash_crop"])
def test_what_training_keeps_can_be_seen_as_evaluation_does(augment, geometry):
    if (augment, geometry) == ("crop_flip", "squash"):
        return  # refused by the config
    pixels = make_pixels(augment=augment, resize=geometry, antialias=True)
    assert torch.equal(pixels.view(pixels.prepare(JPEG, train=True)), pixels.prepare(JPEG))


def test_normalise():
    batch = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    mean, std = torch.tensor([0.5, 0.0, 1.0]).view(3, 1, 1), torch.tensor([0.5, 2.0, 1.0]).view(3, 1, 1)
    assert normalise(batch, mean, std)[0, :, 0, 0].tolist() == pytest.approx([1.0, 0.5, 0.0], abs=1e-6)
    floats = batch.float()
    normalise(floats, mean, std)
    assert floats.unique().tolist() == [255]


# --- presets and keys


def pixels_of(protocol: str, feature: str = "sup_vitb16_imagenet21k", **keys) -> Pixels:
    return build_pixels(make_cfg(DATA__FEATURE=feature, **{f"DATA__{k}": v for k, v in keys.items()}), protocol)


def test_presets_are_the_original_pipelines():
    def parts(preset, protocol):
        found = pixels_of(protocol, PIXELS=preset)
        return found.decoder, found.resize, found.interpolation, found.antialias, found.mean[0]

    assert parts("vpt", "vtab") == ("tf", "squash", "bilinear_tf1", False, 0.485)
    assert parts("vpt", "fgvc") == ("pil", "crop", "bilinear", True, 0.485)
    assert parts("noah", "vtab") == ("pil", "squash", "bicubic", True, 0.485)
    assert parts("noah", "fgvc") == ("pil", "squash_crop", "bicubic", True, 0.485)
    assert parts("study", "vtab") == ("pil", "squash", "bicubic", True, 0.0)
    assert parts("study", "manyshot") == ("pil", "crop", "bicubic", True, 0.5)
    assert parts("study", "clevr") == parts("vpt", "vtab")
    assert parts("backbone", "vtab") == ("pil", "squash", "bicubic", True, 0.5)
    assert pixels_of("vtab", "clip_vitb16", PIXELS="backbone").std == OPENAI[1]
    assert pixels_of("vtab", "clip_vitb16").mean == IMAGENET[0]


def test_every_preset_and_protocol_make_a_pipeline():
    for preset in PRESETS:
        for protocol in PROTOCOLS:
            pixels = pixels_of(protocol, PIXELS=preset)
            assert pixels.preset == preset
            assert pixels_from(vars(pixels) | {"size": list(pixels.size)}) == pixels


def test_keys_change_parts_of_a_preset():
    pixels = pixels_of(
        "vtab", DECODER="pil", INTERPOLATION="bicubic", ANTIALIAS="always", NORMALIZE="clip", RESIZE="crop"
    )
    assert (pixels.decoder, pixels.interpolation, pixels.antialias, pixels.resize) == ("pil", "bicubic", True, "crop")
    assert pixels.mean == OPENAI[0]
    assert pixels.preset == "vpt, but mean and std and decoder and resize and interpolation and antialias"
    assert pixels_of("vtab", DECODER="tf").preset == "vpt"
    assert pixels_of("vtab", INTERPOLATION="bilinear").preset == "vpt, but interpolation"  # TensorFlow 2's
    smooth = pixels_of("vtab", ANTIALIAS="always")
    assert (smooth.interpolation, smooth.antialias) == ("bilinear", True)
    for preset in PRESETS:
        other = pixels_of("vtab", PIXELS=preset, INTERPOLATION="bilinear_tf1")
        assert (other.interpolation, other.antialias) == ("bilinear_tf1", False)
    assert pixels_of("vtab", AUGMENT="crop_flip").resize == "crop"
    assert pixels_of("fewshot").auto_augment == "rand-m9-mstd0.5-inc1"
    assert pixels_of("fewshot", AUTO_AUGMENT="none", RANDOM_ERASING=0.0, AUGMENT="none").random is False
    assert pixels_of("vtab", MEAN=[0, 0.1, 0.2], STD=[1, 1, 2]).mean == (0.0, 0.1, 0.2)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["DATA.PIXELS", "vtp"], "known: 'vpt'"),
        (["DATA.AUTO_AUGMENT", "randaug"], "DATA.AUTO_AUGMENT: timm has no policy 'randaug'"),
        (["DATA.AUTO_AUGMENT", "rand-m9-foo1"], "timm has no policy 'rand-m9-foo1'"),
        (["DATA.MEAN", "[0.5]"], "three numbers"),
        (["DATA.STD", "[0.5, 0, 1]"], "divided"),
        (["DATA.AUGMENT", "crop_flip", "DATA.RESIZE", "squash"], "crops a larger image"),
        (["DATA.INTERPOLATION", "bilinear_tf1", "DATA.ANTIALIAS", "always"], "never antialiased"),
        (["DATA.RANDOM_ERASING", "2"], "RANDOM_ERASING"),
    ],
)
def test_bad_keys_are_refused(pairs, message):
    with pytest.raises(ConfigError, match=message):
        load_cfg("configs/digits.yaml", pairs)


def test_pipelines_saved_before_their_parts_had_names_are_read():
    old = {"size": [224, 224], "augment": "crop_flip", "mean": [0.5] * 3, "std": [0.5] * 3}
    assert pixels_from(old).resize == "crop"
    assert pixels_from(old | {"augment": "none"}).resize == "squash"


def test_runs_of_earlier_versions_keep_their_pixels():
    parts = dict(decoder="tf", resize="squash", interpolation="bilinear", antialias=False, dtype="float32")
    saved = vars(make_pixels()) | parts
    del saved["enlarged"]
    exact = F.interpolate(
        torch.from_numpy(decode(JPEG, "tf")).permute(2, 0, 1)[None].float(), (224, 224), mode="bilinear"
    )
    torch.testing.assert_close(pixels_from(saved).prepare(JPEG), exact[0], rtol=0, atol=4e-4)
    assert pixels_from(saved).recipe(False) != pixels_of("vtab", DTYPE="float32").recipe(False)
    crops = saved | {"resize": "crop", "size": [384, 384]}
    assert pixels_from(crops).enlarged == (439, 439)
    assert pixels_from(crops | {"enlarged": [438, 438]}).enlarged == (438, 438)


@pytest.mark.parametrize(("size", "enlarged"), [(224, 256), (384, 438), (448, 512)])
def test_images_are_enlarged_to_vpts_sizes_before_they_are_cropped(size, enlarged):
    """src/data/transforms.py of VPT."""
    pixels = make_pixels(size=(size, size), resize="crop", antialias=True, augment="crop_flip")
    assert pixels.enlarged == (enlarged, enlarged)
    assert pixels.prepare(JPEG, train=True).shape[1] == enlarged


@pytest.mark.tf
def test_resize_against_tensorflow_itself():
    tensorflow = pytest.importorskip("tensorflow")
    for side in ((640, 427), (64, 64), (32, 32), (1242, 375)):
        pixels = np.array(PHOTO.resize(side))
        exact = tensorflow.image.resize(pixels, (224, 224), method="bilinear", antialias=False).numpy()
        found = resize(pixels, (224, 224), "bilinear", False, "float32").permute(1, 2, 0).numpy()
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-3)
    for side, size in SIZES:
        pixels = np.random.RandomState(0).randint(0, 256, (*side, 3), dtype=np.uint8)
        exact = tensorflow.compat.v1.image.resize(pixels, size).numpy()
        np.testing.assert_allclose(tf1(pixels, size), exact, rtol=0, atol=1e-4)
        found = resize(pixels, size, "bilinear_tf1", False, "float32").permute(1, 2, 0).numpy()
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-4)
    raw = encoded(PHOTO, "JPEG", quality=90)
    np.testing.assert_array_equal(decode(raw, "tf"), tensorflow.io.decode_jpeg(raw, channels=3).numpy())
