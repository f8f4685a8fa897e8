"""Export a finished run, so that others load it without ViTune: in plain timm, onnxruntime, or torch alone.

    vitune export output/digits/vit_micro_glyphs/lora/lr0.005_... --to timm
    vitune export output/digits/vit_micro_glyphs/lora/lr0.005_... --to onnx --out digits.onnx

timm          a folder that timm.create_model loads: weights and config.json; or, where --out ends in .safetensors, .pth
              or .pt, timm's state dict. Refused for what does not fold into a ViT (adapters, prompts, FreqFit)
onnx          an ONNX file; its metadata has class_names, mean, std, size and more
torch-export  a torch.export program (.pt2); its extra file about.json has the same
hub-folder    a folder for the Hugging Face Hub, with a model card; after a run of peft also its adapter

What folds is folded before it is exported; what does not is exported with the network around it. Any batch size works.
Before anything stays, the file's logits are compared with the run's, ONNX by onnxruntime, to 1e-4 of their size.

Without --out, results go to RUN_DIR/export/. KEY VALUE pairs override the run's settings, such as MODEL.MODEL_ROOT and
the folder in which the backbone's weights are now.

Exit status: 0 when it was written, 2 for settings with problems, 1 for anything else.
"""

import argparse
import sys

from ...utils.paths import given_path
from .. import command

# Where each format goes in RUN_DIR/export.
NAMES = {"timm": "timm", "onnx": "model.onnx", "torch-export": "model.pt2", "hub-folder": "hub"}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run_dir", type=given_path, metavar="RUN_DIR", help="a finished run's folder, or its tuned.safetensors"
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
