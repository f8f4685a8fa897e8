"""One training step of a ViT with LoRA and FreqFit: ours, and timm with Hugging Face peft in a plain loop."""

import argparse
from dataclasses import dataclass
from functools import partial

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ...engine.cost import flops
from ...engine.held import hold
from ...engine.precision import set_backends
from ...engine.step import TrainingStep, compiled
from ...engine.what_to_keep import set_recompute
from ...models.vit_models import TunedViT, parse
from ...solver.losses import build_loss
from ...solver.optimizer import build_optimizer
from ...utils.plots import bar_chart
from . import common
from .common import CLASSES, Report, Timing, Work

RANK = 8
DEFAULTS = [
    "MODEL.TRANSFER_TYPE", "lora", "MODEL.LORA.TARGETS", "[attn.qkv]", "MODEL.LORA.RANK", str(RANK),
    "MODEL.LORA.ALPHA", str(RANK), "FREQFIT", "freqfit",
]  # fmt: skip
PEFT, PEFT_FREQFIT = "peft LoRA, fp32", "peft LoRA + FFT hooks, fp32"
PEAK = "a square matrix product, "


@dataclass(frozen=True)
class Contender:
    """A contender: a kind of network (which determines the work), its precision, and its reference."""

    kind: str
    forced: tuple[str, ...] = ()
    precision: str = "fp32"
    reference: str = PEFT_FREQFIT

    @property
    def compiled(self) -> bool:
        return "MODEL.COMPILE" in self.forced


OURS = "LoRA + FreqFit"
BF16 = ("SOLVER.AMP", "bf16")
COMPILED = ("MODEL.COMPILE", "True")
ALONE = ("FREQFIT", "")
CONTENDERS = {
    PEFT: Contender("peft LoRA", reference=PEFT),
    PEFT_FREQFIT: Contender("peft LoRA + FFT hooks"),
    f"ours, {OURS}, fp32": Contender(OURS),
    f"ours, {OURS}, bf16": Contender(OURS, BF16, "bf16"),
    f"ours, {OURS}, fp32, compiled": Contender(OURS, COMPILED),
    f"ours, {OURS}, bf16, compiled": Contender(OURS, (*BF16, *COMPILED), "bf16"),
    "ours, LoRA, bf16": Contender("LoRA", (*ALONE, *BF16), "bf16", reference=PEFT),
}


def run(args: argparse.Namespace) -> Report:
    device = common.use(args)
    cfg = common.config(args, DEFAULTS)
    set_backends(cfg, device)
    images, labels = common.image_batch(cfg, args.batch, device)
    chosen = {name: contender for name, contender in CONTENDERS.items() if not (contender.compiled and args.no_compile)}
    cfgs = {name: common.config(args, DEFAULTS, contender.forced) for name, contender in chosen.items()}
    of_kind = {contender.kind: cfgs[name] for name, contender in chosen.items()}
    work = {kind: _count(kind, contender, images[:1], labels[:1]) for kind, contender in of_kind.items()}
    makers = {name: partial(make, contender, cfgs[name], images, labels) for name, contender in chosen.items()}
    products = {f"{PEAK}{name}": partial(product, dtype, device) for name, dtype in DTYPES.items()}
    timings = common.take_turns(makers | products, args.rounds, device)
    peaks = {name: 2 * matrix_side(device) ** 3 / timings[f"{PEAK}{name}"].seconds for name in DTYPES}
    rows = {
        name: _row(name, contender, timings, work[contender.kind], peaks, args.batch)
        for name, contender in chosen.items()
    }
    ratios = {name: row["times_as_fast"] for name, row in rows.items()}
    return Report(
        _text(rows, peaks, common.conditions(args, device)),
        {
            "backbone": args.backbone,
            "batch": args.batch,
            "contenders": rows,
            "matrix_peak_flop_per_second": peaks,
            "matrix_side": matrix_side(device),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
        },
        lambda path: bar_chart(
            ratios, f"A training step of {args.backbone}", "times as fast as peft doing the same in fp32", path
        ),
    )


# --- the contenders


def make(contender: Contender, cfg: CfgNode, images: Tensor, labels: Tensor) -> Work:
    """The contender's step on this batch, on the device that the batch is on."""
    model = build(contender.kind, cfg).to(images.device)
    if contender.kind.startswith("peft"):
        return plain_step(model, cfg, images, labels)
    return our_step(model, cfg, images, labels)


def build(kind: str, cfg: CfgNode) -> nn.Module:
    """A network of this kind, with random weights, in training mode."""
    if not kind.startswith("peft"):
        methods = parse(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)
        return TunedViT(common.random_vit(cfg), methods, cfg.MODEL, CLASSES, drop_path=cfg.SOLVER.DROP_PATH)
    from peft import LoraConfig, get_peft_model  # imported here: it imports transformers

    vit = common.random_vit(cfg, CLASSES)
    lora = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["qkv"], modules_to_save=["head"])
    model = get_peft_model(vit, lora)
    if "FFT" in kind:
        add_fft_hooks(vit)
    return model.train()


class OriginalFilter(nn.Module):
    """x + scale * irfft2(rfft2(x) * filter) + shift over the patches, as in FreqFit's code: (B, N, D), float32."""

    def __init__(self, prefix: int, grid: tuple[int, int], dim: int):
        super().__init__()
        self.prefix = prefix
        self.grid = grid
        self.filter = nn.Parameter(0.02 * torch.randn(grid[0], grid[1] // 2 + 1, dim, 2))
        self.scale = nn.Parameter(1 + 0.02 * torch.randn(dim))
        self.shift = nn.Parameter(0.02 * torch.randn(dim))

    def forward(self, x: Tensor) -> Tensor:
        prefix, patches = x[:, : self.prefix], x[:, self.prefix :]
        image = patches.float().unflatten(1, self.grid)  # (B, rows, cols, D)
        spectrum = torch.fft.rfft2(image, dim=(1, 2), norm="ortho") * torch.view_as_complex(self.filter)
        filtered = torch.fft.irfft2(spectrum, s=self.grid, dim=(1, 2), norm="ortho").flatten(1, 2)
        return torch.cat((prefix, patches + filtered * self.scale + self.shift), dim=1)


def add_fft_hooks(vit: nn.Module) -> None:
    """A filter before every block and one after the last, each called by a forward hook."""
    sizes = (vit.num_prefix_tokens, vit.patch_embed.grid_size, vit.embed_dim)
    vit.filters = nn.ModuleList(OriginalFilter(*sizes) for _ in range(len(vit.blocks) + 1))
    for block, spectral in zip(vit.blocks, vit.filters, strict=False):
        block.register_forward_pre_hook(lambda _, inputs, spectral=spectral: spectral(inputs[0]))
    vit.blocks[-1].register_forward_hook(lambda _, inputs, output: vit.filters[-1](output))


def plain_step(model: nn.Module, cfg: CfgNode, images: Tensor, labels: Tensor) -> Work:
    """A plain training loop."""
    trained = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.AdamW(trained, cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def our_step(model: TunedViT, cfg: CfgNode, images: Tensor, labels: Tensor) -> Work:
    """The trainer's step."""
    set_recompute(cfg, model, images.device)
    hold(model, cfg, images.device)
    optimizer = build_optimizer(model.named_parameters(), cfg.SOLVER, images.device.type == "cuda", model)
    loss_of = build_loss(cfg.SOLVER.LOSS, None, cfg.SOLVER.LABEL_SMOOTHING)
    step = TrainingStep(cfg, compiled(model, cfg), optimizer, loss_of, images.device)
    return lambda: step(images, labels)


# --- the machine's peak

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def matrix_side(device: torch.device) -> int:
    """Rows and columns of the square matrices whose product is the machine's peak."""
    return 8192 if device.type == "cuda" else 2048


def product(dtype: torch.dtype, device: torch.device, side: int = 0) -> Work:
    """The product of a matrix of ``side`` rows and columns (0: ``matrix_side``) with itself."""
    side = side or matrix_side(device)
    square = torch.randn(side, side, device=device).to(dtype)
    return lambda: square @ square


# --- results


def _count(kind: str, cfg: CfgNode, image: Tensor, label: Tensor) -> dict:
    """Trained parameters and the work per image of an eager network of this kind in float32."""
    model = build(kind, cfg).to(image.device)
    return {
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "forward_multiply_adds": flops(model, image.shape[-2:]),
        "step_operations": step_operations(model, image, label),
    }


def step_operations(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Operations (a multiply-add is two) of one forward and backward, as torch dispatches them.

    So frozen weights cost no gradient of their own, but gradients of activations that pass through them count. Only
    matrix products and convolutions; attention counts as its products, without what a fused kernel recomputes.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        nn.functional.cross_entropy(model(images), labels).backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def _row(name: str, contender: Contender, timings: dict[str, Timing], work: dict, peaks: dict, batch: int) -> dict:
    timing = timings[name]
    return {
        **common.compared(timings, name, contender.reference),
        "images_per_second": batch / timing.seconds,
        **timing.as_dict(),
        "compile_seconds": timing.compile_seconds if contender.compiled else None,
        **work,
        "of_matrix_peak": work["step_operations"] * batch / timing.seconds / peaks[contender.precision],
        "peak_memory_bytes": timing.peak,
    }


def _text(rows: dict[str, dict], peaks: dict[str, float], conditions: str) -> str:
    header = ["one training step", "times peft", "s", "images/s", "trained parameters", "G multiply-adds"]
    header += ["step GFLOP", "of peak", "peak GPU memory, GiB", "compile s"]
    lines = [
        [
            name,
            common.ratio_text(row),
            f"{row['seconds']:.4g}",
            f"{row['images_per_second']:,.4g}",
            f"{row['trained_parameters']:,}",
            f"{row['forward_multiply_adds'] / 1e9:.4g}",
            f"{row['step_operations'] / 1e9:.4g}",
            f"{row['of_matrix_peak']:.0%}",
            "" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 2**30:.2f}",
            "" if row["compile_seconds"] is None else f"{row['compile_seconds']:.0f}",
        ]
        for name, row in rows.items()
    ]
    measured = ", ".join(f"{name} {peak / 1e9:,.0f} GFLOP/s" for name, peak in peaks.items())
    return (
        f"{common.markdown(header, lines)}\n\nTimes peft: each against peft without, or with, FreqFit. "
        "G multiply-adds: one image forward, by fvcore. Step GFLOP: one image forward and backward, by torch, two "
        f"operations for a multiply-add. Peak: of a matrix product here, {measured}. {conditions}.\n"
    )
