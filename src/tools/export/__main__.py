"""Export a finished run for use without ViTune: in timm, onnxruntime, torch, or on the Hugging Face Hub.

    vitune export RUN_DIR --to timm
    vitune export RUN_DIR --to onnx --out digits.onnx

timm          a folder that timm.create_model loads (weights and config.json), or timm's state
              dict if --out ends in .safetensors, .pth or .pt. Refused for methods that cannot be
              folded into a ViT (adapters, prompts, FreqFit)
onnx          an ONNX file, with class_names, mean, std, size and more in its metadata
torch-export  a torch.export program (.pt2), with the same information in about.json inside
hub-folder    a folder for the Hugging Face Hub, with a model card; for runs of Hugging Face peft
              also the adapter

Methods that fold are folded first; others are exported as part of the network. Any batch size
works. The exported file is loaded again and must give the run's logits to 1e-4 of their size
(ONNX: in onnxruntime), or it is not kept.

The default for --out is a name in RUN_DIR/export/. KEY VALUE pairs override the run's settings,
such as MODEL.MODEL_ROOT if the backbone's weights have moved.

Exit status: 0 on success, 2 for a problem with the settings, 1 for any other error.
"""

import argparse
import sys

from ...utils.paths import given_path
from .. import command

# Where each format goes in RUN_DIR/export.
NAMES = {"timm": "timm", "onnx": "model.onnx", "torch-export": "model.pt2", "hub-folder": "hub"}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run_dir", type=given_path, metavar="RUN_DIR", help="a finished run's folder, or a fit's, or tuned.safetensors"
    )
    parser.add_argument("--to", required=True, choices=NAMES, help="the format")
    parser.add_argument("--out", type=given_path, metavar="PATH", help="the file or folder to write")
    parser.add_argument("--force", action="store_true", help="overwrite an earlier export at --out")
    command.add_settings(parser)


def work(args: argparse.Namespace) -> int | None:
    from .work import perform  # here: torch takes seconds to load

    return perform(args)


def main(argv: list[str]) -> int:
    return command.run("export", __doc__, add_options, work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
