"""Image files that nobody checked: damaged, mislabelled, of rare kinds, made to do harm. One clear error, or pixels."""

import io
import os
import resource
import struct
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import make_cfg
from image_sets import GRADIENT, JPEG, encoded, make_pixels
from PIL import Image, ImageCms

from src.configs.config import ConfigError, load_cfg
from src.data.decode import MAX_PIXELS, MAX_SCANS, BadImage, decode, open_image
from src.data.image_files import find_images, read_images
from src.data.opened import open_data
from src.data.pixels import build_pixels, cut_long_sides, resize
from src.data.sources.base import IMAGE_ENDINGS, IMAGE_FORMATS

GIB = 2**30
GREY = np.asarray(GRADIENT)  # 0, 8, ..., 240
RGB = np.repeat(GREY[..., None], 3, axis=-1)
DECODERS = pytest.mark.parametrize("decoder", ["pil", "tf"])


@contextmanager
def memory_limit(extra: int):
    """Whoever asks for more than ``extra`` bytes beyond what the process has gets a MemoryError."""
    with open("/proc/self/statm") as file:
        have = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (have + extra, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def deep(values: np.ndarray, kind: str, **options) -> bytes:
    return encoded(Image.fromarray(values), kind, **options)


# --- rare but right


def tiff(values: np.ndarray, order: str) -> bytes:
    """An uncompressed grey TIFF file of 16 bits in a byte order, "<" or ">", written by hand."""
    height, width = values.shape
    data = values.astype(f"{order}u2").tobytes()
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    tags.append((279, len(data)))
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def palette(transparency) -> bytes:
    return encoded(GRADIENT.convert("P"), "PNG", transparency=transparency)


SIXTEEN = GREY.astype(np.uint16) * 257
OTHER = Image.new("L", GRADIENT.size, 255)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
RARE = {
    "little-endian TIFF of 16 bits": (tiff(SIXTEEN, "<"), 0),
    "big-endian TIFF of 16 bits": (tiff(SIXTEEN, ">"), 0),
    "PGM of 16 bits": (deep(SIXTEEN, "PPM"), 0),
    "PNG of 16 bits": (deep(SIXTEEN, "PNG"), 0),
    "TIFF of integers": (deep(SIXTEEN.astype(np.int32), "TIFF"), 0),
    "TIFF of floats": (deep(GREY.astype(np.float32) / 255, "TIFF"), 0),
    "TIFF of CMYK": (encoded(GRADIENT.convert("RGB").convert("CMYK"), "TIFF"), 1),
    "TIFF with LZW": (encoded(GRADIENT.convert("RGB"), "TIFF", compression="tiff_lzw"), 0),
    "TIFF of several images": (encoded(GRADIENT, "TIFF", save_all=True, append_images=[OTHER]), 0),
    "animated GIF": (encoded(GRADIENT, "GIF", save_all=True, append_images=[OTHER]), 0),
    "animated PNG": (encoded(GRADIENT, "PNG", save_all=True, append_images=[OTHER]), 0),
    "animated WebP": (encoded(GRADIENT.convert("RGB"), "WEBP", lossless=True, save_all=True, append_images=[OTHER]), 0),
    "palette, one colour transparent": (palette(3), 0),
    "palette, several transparent": (palette(bytes(range(200))), 0),
    "grey and alpha": (encoded(GRADIENT.convert("LA"), "PNG"), 0),
    "AVIF": (encoded(GRADIENT.convert("RGB"), "AVIF", quality=100), 4),
    "JPEG 2000": (encoded(GRADIENT.convert("RGB"), "JPEG2000"), 1),
    "a colour profile": (encoded(GRADIENT.convert("RGB"), "PNG", icc_profile=PROFILE), 0),
}  # fmt: skip


@DECODERS
@pytest.mark.parametrize("kind", RARE)
def test_rare_kinds_of_files_become_the_same_rgb(kind, decoder):
    raw, atol = RARE[kind]
    found = decode(raw, decoder)
    assert (found.shape, found.dtype) == (RGB.shape, np.uint8)
    assert np.abs(found.astype(int) - RGB).max() <= atol


def test_one_bit_is_black_and_white():
    bits = Image.fromarray((GREY > 127).astype(np.uint8) * 255).convert("1")
    for kind in ("PNG", "TIFF", "PPM"):
        np.testing.assert_array_equal(decode(encoded(bits, kind))[..., 0], (GREY > 127) * 255)


def test_large_images_are_converted_in_bands_as_in_one_piece(monkeypatch):
    whole = decode(JPEG), decode(deep(SIXTEEN, "PNG"))
    monkeypatch.setattr("src.data.decode.BAND", 100)
    np.testing.assert_array_equal(decode(JPEG), whole[0])
    np.testing.assert_array_equal(decode(deep(SIXTEEN, "PNG")), whole[1])


@pytest.mark.parametrize("name", ["a.jfif", "a.JPE", "a.avif", "a.pbm", "a.j2k", "a.apng", "a.mpo", "a.dib"])
def test_photographs_are_found_by_every_ending_that_they_have(tmp_path, name):
    (tmp_path / name).write_bytes(JPEG)
    assert find_images([str(tmp_path)]) == [str(tmp_path / name)]


def test_every_format_of_the_table_is_one_that_pillow_reads_and_runs_no_program():
    Image.init()
    assert set(IMAGE_FORMATS) <= set(Image.OPEN)
    assert not {"EPS", "WMF", "IM", "FITS", "MSP", "GRIB", "HDF5"} & set(IMAGE_FORMATS)
    assert len(set(IMAGE_ENDINGS)) == len(IMAGE_ENDINGS)
    assert {ending for ending, kind in Image.registered_extensions().items() if kind in IMAGE_FORMATS} <= {
        *IMAGE_ENDINGS
    }


# --- more than 8 bits


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_key_says_what_is_white(kind):
    """12 bits in 16, grey and in colour."""
    twelve = GREY.astype(np.uint16) * 16
    expected = np.round(twelve * (255 / 4095))
    np.testing.assert_array_equal(decode(deep(twelve, kind), white=4095)[..., 1], expected)
    assert decode(deep(twelve, kind)).max() == round(240 * 16 / 257)
    import cv2

    colours = np.stack((twelve, twelve // 2, twelve * 0), axis=-1)
    raw = cv2.imencode(f".{kind.lower()}", colours[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode(raw, white=4095), np.round(colours * (255 / 4095)))
    assert decode(raw).max() <= 15
    assert build_pixels(make_cfg(DATA__WHITE=4095.0, DATA__FEATURE="vit_micro_glyphs"), "vtab").white == 4095


@pytest.mark.parametrize(("white", "noted"), [(0, True), (16383, False)])
def test_a_set_that_uses_a_part_of_the_range_is_noted(tmp_path, white, noted):
    """14 bits in 16."""
    for split in ("train", "val", "test"):
        for i, label in enumerate(("cat", "dog")):
            (tmp_path / split / label).mkdir(parents=True)
            values = GREY.astype(np.uint16) * 60 + 300 * i + len(split)
            (tmp_path / split / label / "0.png").write_bytes(deep(values, "PNG"))
    pairs = ["DATA.NAME", "folder", "DATA.DATAPATH", str(tmp_path), "DATA.CACHE_DIR", str(tmp_path / "cache")]
    cfg = load_cfg("configs/digits.yaml", [*pairs, "DATA.WHITE", str(float(white))])
    for _ in range(2):  # the second time from the cache
        data = open_data(cfg)
        data.loaders(cfg, "cpu")
        assert ("the brightest pixel of train, val, test is 57 of 255" in " ".join(data.notes)) == noted
        assert ("DATA.WHITE" in " ".join(data.notes)) == noted


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (GREY.astype(np.float32), 255),  # floats up to 255
        (GREY.astype(np.int32) * 1000, 255_000),
        (GREY.astype(np.float32) * 10, 2550),
    ],
)
def test_values_out_of_range_are_an_error_until_the_key_says_what_is_white(values, white):
    raw = deep(values, "TIFF")
    with pytest.raises(BadImage, match=r"its (float|integer) pixels range from 0 to .*DATA\.WHITE"):
        decode(raw)
    np.testing.assert_array_equal(decode(raw, white=white), RGB)
    np.testing.assert_array_equal(decode(deep(values / 2, "TIFF"), white=white), np.round(RGB / 2))  # on the same scale


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_negative_values_and_what_is_no_number_are_errors(value):
    values = GREY.astype(np.float32) / 255
    values[3, 3] = value
    with pytest.raises(BadImage, match="its float pixels range from"):
        decode(deep(values, "TIFF"))


# --- what is no image


NO_IMAGES = {
    b"": "it is empty",
    bytes(100): "it holds only zeros",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n": "git lfs pull",
    b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>404</body></html>": "an HTML page",
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>': "XML",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n": "PostScript",
    b"PK\x03\x04rest": "zip",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic": "HEIC",
    b"hello": "not in a supported format (JPEG, PNG",
}


@DECODERS
@pytest.mark.parametrize("raw", NO_IMAGES)
def test_what_is_no_image_is_said_in_one_line(raw, decoder):
    with pytest.raises(BadImage) as found:
        decode(raw, decoder)
    assert NO_IMAGES[raw] in str(found.value)
    assert "0x" not in str(found.value)
    assert "\n" not in str(found.value)


def test_broken_files_are_named_in_result_and_prediction_without_addresses(tmp_path):
    for split in ("train", "val", "test"):
        for label in ("cat", "dog"):
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(4):
                image = Image.new("RGB", (20, 20), (40 * i + 60 * (label == "dog"), 9, 9 * len(split)))
                image.save(tmp_path / split / label / f"{i}.png")
    (tmp_path / "train" / "cat" / "5.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "train" / "cat" / "6.jpg").write_bytes(JPEG[:2000])
    pairs = ["DATA.NAME", "folder", "DATA.DATAPATH", str(tmp_path), "DATA.CORRUPT", "skip"]
    cfg = load_cfg("configs/digits.yaml", [*pairs, "DATA.CACHE_DIR", str(tmp_path / "cache")])
    _, left_out = open_data(cfg).loaders(cfg, "cpu")  # which goes into result.json
    assert left_out[0] == "train/cat/5.png: it is a Git LFS pointer, not the image: fetch it with git lfs pull"
    assert left_out[1].startswith("train/cat/6.jpg: it is broken: OSError: image file is truncated")
    ((_, said),) = read_images([str(tmp_path / "train" / "cat" / "5.png")], make_pixels(), 1)
    assert "git lfs pull" in said


@DECODERS
def test_no_program_is_started_for_postscript_named_jpg(tmp_path, monkeypatch, decoder):
    ran = tmp_path / "ran"
    for name in ("gs", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    raw = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    with Image.open(io.BytesIO(raw)) as image:
        assert image.format == "EPS"  # Pillow by itself would
    with pytest.raises(BadImage, match="PostScript"):
        decode(raw, decoder)
    assert not ran.exists()


# --- files that take all memory


def png(width: int, height: int, data: bytes = b"", bits: int = 8, colour: int = 2) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def jpeg(width: int, height: int, **options) -> bytes:
    raw = bytearray(encoded(GRADIENT.convert("RGB"), "JPEG", **options))
    at = max(raw.find(b"\xff\xc0"), raw.find(b"\xff\xc2"))
    raw[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(raw)


def patched(kind: str, at: int, form: str, *values: int) -> bytes:
    raw = bytearray(encoded(GRADIENT.convert("RGB"), kind))
    struct.pack_into(form, raw, at, *values)
    return bytes(raw)


def large_tiff() -> bytes:
    raw = bytearray(tiff(SIXTEEN, "<"))
    at = struct.unpack_from("<I", raw, 4)[0] + 2
    struct.pack_into("<I", raw, at + 8, 60_000)
    struct.pack_into("<I", raw, at + 20, 60_000)
    return bytes(raw)


def large_webp() -> bytes:
    content = b"VP8X" + struct.pack("<IB3x", 10, 0) + b"\xfe\x3f\0" * 2 + encoded(GRADIENT.convert("RGB"), "WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(content) + 4) + b"WEBP" + content


OVERSIZED = {
    "png": png(30_000, 30_000),
    "palette png": png(60_000, 60_000, bits=1, colour=3),
    "jpeg": jpeg(30_000, 30_000),
    "progressive jpeg": jpeg(60_000, 60_000, progressive=True),
    "gif": patched("GIF", 6, "<HH", 60_000, 60_000),
    "bmp": patched("BMP", 18, "<ii", 50_000, 50_000),
    "ppm": b"P6 40000 40000 255\n" + bytes(99),
    "tiff": large_tiff(),
    "webp": large_webp(),
}


@DECODERS
@pytest.mark.parametrize("kind", OVERSIZED)
def test_sizes_are_looked_at_before_memory_is_taken(kind, decoder):
    assert len(OVERSIZED[kind]) < 3000
    with memory_limit(GIB), pytest.raises(BadImage) as found:
        decode(OVERSIZED[kind], decoder)
    if kind != "webp":  # of which Pillow makes room for a frame when it opens the file
        assert "more than DATA.MAX_PIXELS (134,217,728) allows" in str(found.value)


@DECODERS
def test_the_limit_is_a_key(decoder):
    size = Image.open(io.BytesIO(JPEG)).size
    count = size[0] * size[1]
    assert decode(JPEG, decoder, count).shape == (*size[::-1], 3)
    with pytest.raises(BadImage, match=rf"{size[0]} x {size[1]} pixels, more than DATA.MAX_PIXELS \({count - 1:,}\)"):
        decode(JPEG, decoder, count - 1)
    pixels = build_pixels(make_cfg(DATA__MAX_PIXELS=10, DATA__FEATURE="vit_micro_glyphs"), "vtab")
    with pytest.raises(BadImage, match=r"MAX_PIXELS \(10\)"):
        pixels.prepare(JPEG)
    with pytest.raises(ConfigError, match="MAX_PIXELS"):
        load_cfg("configs/digits.yaml", ["DATA.MAX_PIXELS", "0"])


def test_more_pixels_than_pillow_would_allow_are_read_where_the_key_says_so():
    raw = png(60_000, 3_200, bytes((60_000 // 8 + 1) * 3_200), bits=1, colour=0)  # 192 million
    with open_image(raw, 200_000_000) as image:
        assert image.size == (60_000, 3_200)
    with pytest.raises(BadImage, match="MAX_PIXELS"):
        open_image(raw)


@pytest.mark.parametrize("side", [(65_000, 1), (1, 65_000), (40_000, 3)])
@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_long_images_are_cut_before_they_are_enlarged(side, augment):
    raw = png(*side, b"".join(b"\0" + bytes([200]) * side[0] for _ in range(side[1])), colour=0)
    pixels = make_pixels(resize="crop", augment=augment, antialias=True)
    with memory_limit(GIB // 2):
        kept = pixels.prepare(raw, train=True)
        assert (pixels.view(kept) == 200).all()
    assert kept.nbytes < 100_000_000
    assert pixels.view(kept).shape == (3, 224, 224)


def test_cutting_long_images_keeps_the_middle_where_it_is():
    pixels = np.arange(3000, dtype=np.uint16)[None, :, None].repeat(3, 2)
    cut = cut_long_sides(pixels, 256, (224, 224))
    assert cut.shape[1] == 100
    assert cut.mean() == pixels.mean()
    usual = np.zeros((3, 290, 3), np.uint8)
    assert cut_long_sides(usual, 256, (224, 224)).shape == usual.shape
    assert resize(usual, (4, 4), "bilinear", True).shape == (3, 4, 4)
    assert cut_long_sides(np.zeros((2000, 3, 3), np.uint8), 36, (32, 4096)).shape[0] < 20


def test_a_jpeg_file_of_many_scans_is_refused():
    raw = encoded(GRADIENT, "JPEG", progressive=True)
    at = raw.rfind(b"\xff\xda")
    many = raw[:-2] + raw[at:-2] * MAX_SCANS + raw[-2:]
    for decoder in ("pil", "tf"):
        with pytest.raises(BadImage, match="scans"):
            decode(many, decoder)


# --- damage at random


def samples() -> dict[str, bytes]:
    rng = np.random.RandomState(0)
    image = Image.fromarray(rng.randint(0, 256, (20, 24, 3), dtype=np.uint8)).resize((24, 20))
    found = {f"PNG {mode}": encoded(image.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")}
    found["PNG 16"] = deep(SIXTEEN, "PNG")
    found |= {f"JPEG {mode}": encoded(image.convert(mode), "JPEG") for mode in ("L", "RGB", "CMYK")}
    found["progressive"] = encoded(image, "JPEG", progressive=True)
    found |= {kind: encoded(image, kind) for kind in ("GIF", "BMP", "PPM", "WEBP", "AVIF", "JPEG2000", "MPO")}
    found["WEBP lossless"] = encoded(image, "WEBP", lossless=True)
    found["animation"] = encoded(image, "WEBP", save_all=True, append_images=[image.rotate(90)])
    compressions = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    found |= {f"TIFF {name}": encoded(image, "TIFF", compression=name) for name in compressions}
    found |= {"TIFF 16": tiff(SIXTEEN, ">"), "TIFF float": deep(GREY.astype(np.float32) / 255, "TIFF")}
    return found


SAMPLES = samples()


def damaged(raw: bytes, rng: np.random.RandomState, how: str) -> bytes:
    data = bytearray(raw)
    if how == "cut":
        return bytes(data[: rng.randint(len(data))])
    head = min(len(data), 200 if how == "header" else len(data))
    for at in rng.randint(0, head, rng.randint(1, 6)):
        data[at] = rng.choice([0, 0x7F, 0xFF, data[at] ^ (1 << rng.randint(8))])
    return bytes(data)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what is odd in files
@pytest.mark.parametrize("kind", SAMPLES)
def test_damage_gives_one_clear_error_or_pixels(kind):
    rng, errors = np.random.RandomState(list(SAMPLES).index(kind)), []
    pixels = make_pixels(size=(32, 32), resize="crop", antialias=True)
    with memory_limit(GIB):
        for how in ("cut", "header", "anywhere") * 8:
            raw = damaged(SAMPLES[kind], rng, how)
            for decoder in ("pil", "tf") if raw[:2] == b"\xff\xd8" else ("pil",):
                try:
                    found = decode(raw, decoder)
                    assert found.dtype == np.uint8
                    assert found.ndim == 3
                    assert found.shape[2] == 3
                    assert found.size <= 3 * MAX_PIXELS
                    assert pixels.prepare(raw).shape == (3, 32, 32)
                except BadImage as error:
                    errors.append(str(error))
    assert errors
    assert not [said for said in errors if "0x" in said.split("it begins")[0] or "\n" in said or len(said) > 400]
    assert isinstance(pixels.prepare(SAMPLES[kind]), torch.Tensor)
