"""Pre-train the demo's backbone ``vit_micro_glyphs`` on rendered letters: ``python -m src.tools.pretrain_demo``.

The demo adapts this small ViT to scikit-learn's 8x8 digits, so it must know the kind of picture and never the answer:
it learns to name letters and symbols, no digit among them, drawn with the fonts that come with matplotlib. A glyph is
kept as the signed distance to its outline. The pen's width is then one addition, and every training picture is a new
drawing. The weights are written in the layout of Google's JAX ViT .npz files, which timm's ``load_pretrained`` reads.

``--pictures DIR`` draws such pictures instead, as a folder of class folders: the demo's old data set, to see what a
tuned backbone has forgotten of it.
"""

import argparse
import math
import sys
import time
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Generator, Tensor, nn

from ..configs.files import ConfigError
from ..models.vit_backbones.zoo import MODEL_ZOO
from ..utils.io import replace_folder, write_atomic
from ..utils.paths import given_path
from ..utils.progress import tqdm
from . import command

ARCH = MODEL_ZOO["vit_micro_glyphs"].arguments

LOWER = "abcdefghijklmnopqrstuvwxyz"
UPPER = "ABDEFGHJKLMNQRTY"  # capitals that are not larger copies of small letters; I looks like l
GREEK = "αβγδεζθλμξπσφψωΓΔΘΛΞΣΦΨΩ"
SYMBOLS = "&@#$%?+=</*{}§"
CLASSES = LOWER + UPPER + GREEK + SYMBOLS

# Computer Modern has its own encoding: outside the Latin letters, its code points hold other characters.
FONTS = {
    **{f"DejaVuSans{style}": CLASSES for style in ("", "-Bold", "-Oblique", "-BoldOblique")},
    **{f"DejaVuSansMono{style}": CLASSES for style in ("", "-Bold", "-Oblique", "-BoldOblique")},
    **{f"DejaVuSerif{style}": CLASSES for style in ("", "-Bold", "-Italic", "-BoldItalic")},
    **{f"STIXGeneral{style}": CLASSES for style in ("", "Bol", "Italic", "BolIta")},
    **{name: LOWER + UPPER for name in ("cmb10", "cmmi10", "cmr10", "cmss10", "cmti10", "cmtt10")},
    "cmsy10": UPPER,  # calligraphic capitals
}
HELD_OUT_FONTS = ("DejaVuSansMono-Oblique", "DejaVuSerif-Italic", "STIXGeneral")  # for the accuracy printed at the end

CANVAS = 64  # side of a distance map, in pixels
GLYPH = 44  # the longer side of a glyph's box; the rest is room for the pen and the affine map
OVERSAMPLING = 2  # distances are measured on a larger canvas: outlines are exact to a fraction of a pixel

GLYPHS_PER_EPOCH = 40_000
HELD_OUT_GLYPHS = 4_000
BATCH = 128
PICTURES = {"train": 4000, "test": 1000}  # number drawn by --pictures
DRAWN_SEEDS = 1000  # added to the seed of pre-training, so that these drawings are new


def render(font: ImageFont.FreeTypeFont, char: str) -> np.ndarray:
    """``char`` on a square canvas, its box centred and scaled to a fixed longer side: bool (S, S)."""
    left, top, right, bottom = font.getbbox(char)
    ink = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(ink).text((-left, -top), char, fill=255, font=font)
    ink = ink.crop(ink.getbbox())
    zoom = GLYPH * OVERSAMPLING / max(ink.size)
    ink = ink.resize([max(1, round(side * zoom)) for side in ink.size], Image.Resampling.BICUBIC)
    canvas = Image.new("L", (CANVAS * OVERSAMPLING, CANVAS * OVERSAMPLING))
    canvas.paste(ink, [(canvas.width - side) // 2 for side in ink.size])
    return np.asarray(canvas) >= 128


def signed_distance(ink: np.ndarray) -> np.ndarray:
    """Distance to the outline in canvas pixels, positive on ink: bool (S, S) -> float32 (CANVAS, CANVAS)."""
    distance = distance_transform_edt(ink) - distance_transform_edt(~ink)
    blocks = distance.reshape(CANVAS, OVERSAMPLING, CANVAS, OVERSAMPLING)
    return (blocks.mean(axis=(1, 3)) / OVERSAMPLING).astype(np.float32)


def load_glyphs(names: list[str]) -> tuple[Tensor, Tensor]:
    """All characters of the fonts ``names``: distance maps (G, 1, CANVAS, CANVAS) and class indices (G,).

    Raises:
        ValueError: a font has no glyph for a character in FONTS.
    """
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    maps, labels = [], []
    for name in names:
        path = folder / f"{name}.ttf"
        charmap = FT2Font(str(path)).get_charmap()
        font = ImageFont.truetype(str(path), size=2 * GLYPH * OVERSAMPLING)
        for char in FONTS[name]:
            if ord(char) not in charmap:  # PIL would draw the font's box for missing characters
                raise ValueError(f"{path} has no {char!r}: take the character out of FONTS[{name!r}]")
            maps.append(signed_distance(render(font, char)))
            labels.append(CLASSES.index(char))
    return torch.from_numpy(np.stack(maps)).unsqueeze(1), torch.tensor(labels)


class Scribe:
    """Draws random pictures of glyphs; every draw is new, and reproducible from the seed."""

    def __init__(self, fonts: list[str], seed: int):
        self.maps, self.labels = load_glyphs(fonts)
        self.random = Generator().manual_seed(seed)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """RGB pictures in [-1, 1], (count, 3, 32, 32), and their classes (count,)."""
        picks = torch.randint(len(self.labels), (count,), generator=self.random)
        ink = self.trace(self.maps[picks])
        ink = self.resample(ink)
        return (self.colour(ink) - 0.5) / 0.5, self.labels[picks]

    def trace(self, maps: Tensor) -> Tensor:
        """Distance maps (B, 1, S, S) -> ink in [0, 1], (B, 1, 32, 32), slanted, bent and with a varying pen."""
        matrix, zoom = self.affine(len(maps))
        size = ARCH["img_size"]
        grid = F.affine_grid(matrix, [len(maps), 1, size, size], align_corners=False) + self.bend(len(maps))
        distance = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
        distance = distance + self.uniform(len(maps), -0.5, 3.5)  # the pen: canvas pixels to each side of the stroke
        pixels = distance * zoom * size / CANVAS
        return (pixels / self.uniform(len(maps), 0.8, 1.6) + 0.5).clamp(0, 1)  # the edge's softness, in pixels

    def affine(self, count: int) -> tuple[Tensor, Tensor]:
        """Affine maps from picture to canvas (B, 2, 3), and their magnification of the glyph (B, 1, 1, 1)."""
        angle, shear, height, aspect, dx, dy = (
            self.uniform(count, low, high).flatten()
            for low, high in ((-0.25, 0.25), (-0.35, 0.35), (1.1, 1.6), (0.55, 1.1), (-0.12, 0.12), (-0.08, 0.08))
        )
        cos = angle.cos()
        sin = angle.sin()
        width = height * aspect
        rows = [
            torch.stack([(cos + shear * sin) / width, (shear * cos - sin) / width, dx], dim=1),
            torch.stack([sin / height, cos / height, dy], dim=1),
        ]
        return torch.stack(rows, dim=1), (width * height).sqrt()[:, None, None, None]

    def bend(self, count: int) -> Tensor:
        """A smooth random displacement of every pixel, like handwriting: (B, 32, 32, 2)."""
        size = ARCH["img_size"]
        coarse = torch.randn(count, 2, 4, 4, generator=self.random) * self.uniform(count, 0.0, 0.1)
        return F.interpolate(coarse, size, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)

    def resample(self, ink: Tensor) -> Tensor:
        """Reduce most pictures to 8x8 pixels with 17 grey levels, some to 16x16, and resize them: (B, 1, 32, 32)."""
        size = ARCH["img_size"]
        eighth = (F.avg_pool2d(ink, size // 8) * 16).round() / 16
        sixteenth = F.avg_pool2d(ink, size // 16)
        eighth, sixteenth = (F.interpolate(x, size, mode="bilinear", align_corners=False) for x in (eighth, sixteenth))
        choice = self.uniform(len(ink), 0, 1)
        return torch.where(choice < 0.65, eighth, torch.where(choice < 0.8, sixteenth, ink))

    def colour(self, ink: Tensor) -> Tensor:
        """Ink (B, 1, 32, 32) -> RGB in [0, 1], (B, 3, 32, 32): mostly white on black, otherwise any colours."""
        count, size = len(ink), ARCH["img_size"]
        paper = self.uniform(count, 0, 1) + 0.15 * torch.randn(count, 3, 1, 1, generator=self.random)
        contrast = self.uniform(count, 0.35, 1.0) * torch.where(self.uniform(count, 0, 1) < 0.5, 1.0, -1.0)
        pen = paper + contrast + 0.15 * torch.randn(count, 3, 1, 1, generator=self.random)
        clouds = torch.randn(count, 3, 4, 4, generator=self.random) * self.uniform(count, 0, 0.15)
        clouds = F.interpolate(clouds, size, mode="bilinear", align_corners=False)
        grain = torch.randn(count, 3, size, size, generator=self.random) * self.uniform(count, 0, 0.06)
        scene = paper + (pen - paper) * ink + clouds + grain
        # Shifted so that a pen brighter than white, or darker than black, does not flatten the contrast.
        scene = scene - (torch.maximum(paper, pen) - 1).clamp(min=0) - torch.minimum(paper, pen).clamp(max=0)
        plain = self.uniform(count, 0, 1) < 0.75
        return torch.where(plain, ink * self.uniform(count, 0.8, 1.0), scene).clamp(0, 1)

    def uniform(self, count: int, low: float, high: float) -> Tensor:
        """One number per picture: (count, 1, 1, 1)."""
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=self.random)


def build(classes: int) -> tuple[VisionTransformer, nn.Linear]:
    """The untrained backbone without head, and the glyph classifier on its class token.

    timm's initialisation, N(0, 0.02), is for wide models: with 64 channels, training stalls for an epoch.
    """
    vit = VisionTransformer(**ARCH, num_classes=0)
    for block in vit.blocks:
        linears = (block.attn.proj, block.mlp.fc1, block.mlp.fc2)
        for weight in (*block.attn.qkv.weight.chunk(3), *(linear.weight for linear in linears)):
            nn.init.xavier_uniform_(weight)
        block.attn.fused_attn = False  # on a CPU and 65 tokens, plain matrix products are faster
    sincos = build_sincos2d_pos_embed(list(vit.patch_embed.grid_size), vit.embed_dim, temperature=100.0)
    vit.pos_embed.data[:, vit.num_prefix_tokens :] = sincos
    return vit, nn.Linear(vit.num_features, classes)


def train(vit: VisionTransformer, head: nn.Linear, scribe: Scribe, epochs: int) -> None:
    """AdamW, linear warm-up over the first twentieth, then cosine to zero; shows a progress bar."""
    steps = epochs * GLYPHS_PER_EPOCH // BATCH
    model = nn.Sequential(vit, head).train()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]  # biases, norms, tokens, positions: no decay
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, 20 * (step + 1) / steps) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    progress = tqdm(range(steps), desc=f"{epochs} epochs", unit="step", mininterval=1.0)
    for step in progress:
        pictures, labels = scribe.draw(BATCH)
        loss = F.cross_entropy(model(pictures), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            progress.set_postfix(loss=f"{loss.item():.3f}")


@torch.no_grad()
def accuracy(vit: VisionTransformer, head: nn.Linear, scribe: Scribe) -> float:
    """The fraction of new drawings classified correctly."""
    vit.eval()
    hits = 0
    for _ in range(HELD_OUT_GLYPHS // BATCH):
        pictures, labels = scribe.draw(BATCH)
        hits += (head(vit(pictures)).argmax(dim=1) == labels).sum().item()
    return hits / (HELD_OUT_GLYPHS // BATCH * BATCH)


def to_google_npz(vit: VisionTransformer, head: nn.Linear) -> dict[str, np.ndarray]:
    """The weights under the names and in the shapes of Google's JAX ViT: kernels are (in, out), heads are split."""
    arrays = {
        "cls": vit.cls_token,
        "embedding/kernel": vit.patch_embed.proj.weight.permute(2, 3, 1, 0),  # (D, 3, p, p) -> (p, p, 3, D)
        "embedding/bias": vit.patch_embed.proj.bias,
        "Transformer/posembed_input/pos_embedding": vit.pos_embed,
        **_norm("Transformer/encoder_norm", vit.norm),
        **_dense("head", head),
    }
    for i, block in enumerate(vit.blocks):
        prefix = f"Transformer/encoderblock_{i}"
        arrays |= _norm(f"{prefix}/LayerNorm_0", block.norm1)
        arrays |= _attention(f"{prefix}/MultiHeadDotProductAttention_1", block.attn)
        arrays |= _norm(f"{prefix}/LayerNorm_2", block.norm2)
        arrays |= _dense(f"{prefix}/MlpBlock_3/Dense_0", block.mlp.fc1)
        arrays |= _dense(f"{prefix}/MlpBlock_3/Dense_1", block.mlp.fc2)
    return {name: np.ascontiguousarray(tensor.detach().numpy()) for name, tensor in arrays.items()}


def _norm(prefix: str, norm: nn.LayerNorm) -> dict[str, Tensor]:
    return {f"{prefix}/scale": norm.weight, f"{prefix}/bias": norm.bias}


def _dense(prefix: str, linear: nn.Linear) -> dict[str, Tensor]:
    return {f"{prefix}/kernel": linear.weight.T, f"{prefix}/bias": linear.bias}


def _attention(prefix: str, attn: Attention) -> dict[str, Tensor]:
    heads = (attn.num_heads, attn.head_dim)
    arrays = {f"{prefix}/out/kernel": attn.proj.weight.T.unflatten(0, heads), f"{prefix}/out/bias": attn.proj.bias}
    for name, weight, bias in zip(
        ("query", "key", "value"), attn.qkv.weight.chunk(3), attn.qkv.bias.chunk(3), strict=True
    ):
        arrays[f"{prefix}/{name}/kernel"] = weight.T.unflatten(1, heads)  # (D, H, d)
        arrays[f"{prefix}/{name}/bias"] = bias.unflatten(0, heads)
    return arrays


def save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write ``arrays`` to ``path`` atomically: readers see the old file or the new one."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # a file, not a name: numpy would add .npz to the name
            np.savez(file, **arrays)

    write_atomic(path, write)


def draw_pictures(folder: Path, seed: int) -> None:
    """Write new drawings to ``folder``/train and /test, with a folder for every letter and symbol."""

    def fill(place: Path) -> None:
        scribe = Scribe(list(FONTS), seed)
        for split, count in PICTURES.items():
            pictures, labels = scribe.draw(count)
            pixels = ((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()  # (N, 32, 32, 3)
            for i, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
                path = place / split / unicodedata.name(CLASSES[label]).lower() / f"{i:04}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)

    if folder.exists():
        raise FileExistsError(f"{folder} exists and is not overwritten")
    replace_folder(folder, fill)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pictures", type=given_path, metavar="DIR", help="draw pictures into this new folder, and end"
    )
    parser.add_argument("--epochs", type=int, default=4, help=f"of {GLYPHS_PER_EPOCH} new drawings each")
    parser.add_argument("--seed", type=int, default=0, help="of weights and drawings")
    parser.add_argument("--out", type=given_path, default=Path("pretrained/vit_micro_glyphs.npz"), help="file to write")


def work(args: argparse.Namespace) -> None:
    if args.epochs < 1:
        raise ConfigError(f"--epochs is {args.epochs}; it must be at least 1")
    assert not any("DIGIT" in unicodedata.name(char) or char.isnumeric() for char in CLASSES)
    if args.pictures:
        draw_pictures(args.pictures, args.seed + DRAWN_SEEDS)
        return
    start = time.perf_counter()
    torch.manual_seed(args.seed)
    vit, head = build(len(CLASSES))
    seen = Scribe([name for name in FONTS if name not in HELD_OUT_FONTS], args.seed)
    train(vit, head, seen, args.epochs)
    unseen = Scribe(list(HELD_OUT_FONTS), args.seed + 1)
    for label, scribe in (("new drawings of known fonts", seen), ("unseen fonts", unseen)):
        print(f"accuracy on {label}: {100 * accuracy(vit, head, scribe):.2f} % of {len(CLASSES)} classes")
    save_npz(args.out, to_google_npz(vit, head))
    print(f"{args.out} written after {time.perf_counter() - start:.0f} s")


def main(argv: list[str]) -> int:
    return command.run("pretrain_demo", __doc__, add_options, work, argv, log=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
