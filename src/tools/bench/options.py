"""The options of every benchmark and their help: apart from what they measure, which imports torch."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from .. import command


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's command line; ``module`` of this package measures."""

    module: str
    text: str
    add_options: Callable[[argparse.ArgumentParser], None]


def add_common_options(parser: argparse.ArgumentParser, batch: int, rounds: int) -> None:
    parser.add_argument("--batch", type=positive, default=batch, help="images in a batch (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=rounds, help="turns that each takes (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> (default: %(default)s)")
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        help="of torch on the CPU; 0: as many as it likes. With 1, on the CPU, the processor's time is measured, which "
        "busy neighbours change little",
    )


def add_network_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backbone",
        default="timm:vit_base_patch16_224",
        help="timm:<name>, or a name of the zoo; its weights are random (default: %(default)s)",
    )
    command.add_settings(parser, "the defaults, such as DATA.CROPSIZE 384")


def add_compile_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-compile", action="store_true", help="leave out what torch.compile takes minutes for")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


STEP = """\
One training step of a ViT with LoRA and FreqFit: ours, and timm with Hugging Face peft in a plain loop.

    vitune bench step
    vitune bench step --backbone timm:vit_large_patch16_224 --batch 64 --rounds 10 SOLVER.OPTIMIZER sgd

A step is forward, loss, backward and optimizer, on one batch that is already on the device. LoRA has rank 8 on
attn.qkv everywhere. "peft + FFT hooks" filters as FreqFit's original code does (rfft2, filter, irfft2, scale and shift
in float32). Every row is compared with peft doing the same: LoRA, or LoRA and FreqFit.

"G multiply-adds" is fvcore's count for one image forward. "step GFLOP" is torch's FlopCounterMode over forward and
backward of one image, two operations for a multiply-add: gradients of activations, and of the weights that train.
"of peak" is that work per second, over what one large square matrix product reaches in the same precision and run.
"""


def add_step_options(parser: argparse.ArgumentParser) -> None:
    add_common_options(parser, batch=8, rounds=5)
    add_network_options(parser)
    add_compile_option(parser)


DATA = """\
From JPEG files of 500x375 pixels to batches of 224x224, against what one would write with Pillow and torchvision.

    vitune bench data
    vitune bench data --images 500 --rounds 5 --out output/bench

First the pass over files that nothing was kept of, then batches from what was kept, in images per second of one core.
"""


def add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=positive, default=400, help="how many files (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=3, help="turns that each takes (default: %(default)s)")


EVAL = """\
Inference over batches: our evaluator, and a plain loop over a timm model.

    vitune bench eval
    vitune bench eval --batch 64 --batches 8 MODEL.TRANSFER_TYPE lora FREQFIT freqfit

The methods are MODEL.TRANSFER_TYPE's and FREQFIT's, none unless said; the plain loop's model has none. Every row is
compared with the plain loop in the same precision.
"""


def add_eval_options(parser: argparse.ArgumentParser) -> None:
    add_common_options(parser, batch=16, rounds=5)
    add_network_options(parser)
    add_compile_option(parser)
    parser.add_argument("--batches", type=positive, default=2, help="in one pass (default: %(default)s)")


FREQFIT = """\
One SpectralFilter, forward and backward: two matrix products against two FFTs, over the number of tokens.

    vitune bench freqfit
    vitune bench freqfit --dim 384 --batch 32 --rounds 10

Beside the times: how far what is added to the tokens, and each gradient, are from FFTs in float64, and where the
FFTs win. bf16 is autocast; without instructions for it a CPU multiplies the matrices in float32.
"""


def add_freqfit_options(parser: argparse.ArgumentParser) -> None:
    add_common_options(parser, batch=16, rounds=5)
    parser.add_argument("--dim", type=positive, default=768, help="channels (default: %(default)s)")
    parser.add_argument(
        "--largest", type=positive, default=2048, help="leave out more tokens than this (default: %(default)s)"
    )


LINEAR = """\
Linear probing on kept features: all its epochs, against one pass of the backbone over the same images.

    vitune bench linear
    vitune bench linear --backbone timm:vit_small_patch16_224 --images 1000 --epochs 100 --rounds 3

Training is what train.py does from its data on, with random images that the cache keeps; the pass computes features
alone. The target for 100 epochs is 1.3 times the pass, which is part of the training. "100 more" is the next point of
a grid of learning rates: it finds the activations on disk.
"""


def add_linear_options(parser: argparse.ArgumentParser) -> None:
    add_common_options(parser, batch=64, rounds=3)
    add_network_options(parser)
    parser.add_argument("--images", type=positive, default=1000, help="to train on (default: %(default)s)")
    parser.add_argument("--epochs", type=positive, default=100, help="of probing (default: %(default)s)")


GPU = """\
All that a GPU must show, in one command: what is computed, then how fast and in how much memory.

    vitune bench gpu
    vitune bench gpu --seconds 300 --parts smoke,step
    vitune bench gpu --device cpu --tiny

Parts run in processes of their own, each with a limit of its own. The table and the JSON file are written after every
group of parts, whatever fails. "FAILED" is something wrong, and makes the exit status 1; "short of the aim" is slow.
Nothing is downloaded, and weights are random but for the demo's. Packages that this machine lacks are named before
anything starts; --packages brings them. --tiny is for trying the program itself: its figures mean nothing.
"""


def add_gpu_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=positive, default=530, help="for everything (default: %(default)s)")
    parser.add_argument("--parts", default="", help="only these, with commas between them")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="small networks, few images")
    parser.add_argument(
        "--backbone", default="timm:vit_base_patch16_224", help="of what is timed (default: %(default)s)"
    )
    parser.add_argument("--batch", type=positive, default=64, help="images in a batch (default: %(default)s)")


PEFT = """\
A training step with every tuner of Hugging Face peft: through MODEL.PEFT, and peft alone in a plain loop.

    vitune bench peft
    vitune bench peft --backbone timm:vit_base_patch16_224 --batch 64 --tuners LORA VERA SOLVER.AMP bf16

Both adapt q, k and v of every block, with the same arguments, and train a head. LORA is compared with our own LoRA as
well. Settings such as SOLVER.AMP act on our side only.
"""
TUNERS = ("LORA", "LOHA", "LOKR", "IA3", "OFT", "HRA", "VERA", "FOURIERFT")


def add_peft_options(parser: argparse.ArgumentParser) -> None:
    add_common_options(parser, batch=4, rounds=5)
    add_network_options(parser)
    parser.add_argument("--tuners", nargs="+", default=TUNERS, help="peft's names (default: %(default)s)")


MEMORY = """\
What the forward pass keeps for the backward pass, by method and MODEL.RECOMPUTE: MiB an image, and what it costs.

    vitune bench memory --no-times
    vitune bench memory --backbone timm:vit_large_patch16_224 --batch 64 --methods lora ssf lora+freqfit

Bytes are counted on shapes alone; times are those of training steps at every level, in turns.
"""
MEMORY_METHODS = (
    *("lora", "lora+freqfit", "fact_tt", "ssf", "rlrr", "repadapter", "adaptformer", "convpass", "prompt", "vqt"),
    "tinytl-bias",
)


def add_memory_options(parser: argparse.ArgumentParser) -> None:
    add_common_options(parser, batch=8, rounds=3)
    add_network_options(parser)
    parser.add_argument(
        "--methods", nargs="+", default=MEMORY_METHODS, help="beside full fine-tuning (default: %(default)s)"
    )
    parser.add_argument("--no-times", action="store_true", help="count bytes alone")


BENCHMARKS = {
    "step": Benchmark("step", STEP, add_step_options),
    "peft": Benchmark("tuners", PEFT, add_peft_options),
    "data": Benchmark("data", DATA, add_data_options),
    "eval": Benchmark("evaluation", EVAL, add_eval_options),
    "freqfit": Benchmark("freqfit", FREQFIT, add_freqfit_options),
    "linear": Benchmark("linear", LINEAR, add_linear_options),
    "memory": Benchmark("memory", MEMORY, add_memory_options),
    "gpu": Benchmark("gpu.driver", GPU, add_gpu_options),
}
