"""Export a finished run, so that others load it without ViTune: in plain timm, onnxruntime, or torch alone.

    python -m src.tools.export output/digits/vit_micro_glyphs/lora/lr0.005_... --to timm
    python -m src.tools.export output/digits/vit_micro_glyphs/lora/lr0.005_... --to onnx --out digits.onnx

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

from ...engine.checkpoint import load_tuned
from ...engine.results import RunFolder
from ...utils.paths import given_path
from ..finished.command import guarded
from ..finished.run import methods_of
from .from_files import check
from .hub import KNOWN, how_to_load_hub, write_hub
from .network import network_of
from .onnx_file import how_to_load_onnx, require_onnx, write_onnx
from .plain import FILES, FOLDER, check_free, how_to_load, write
from .program import how_to_load_program, write_program

# Where each goes in RUN_DIR/export.
NAMES = {"timm": "timm", "onnx": "model.onnx", "torch-export": "model.pt2", "hub-folder": "hub"}


def export(args: argparse.Namespace) -> None:
    """The command."""
    run = args.run_dir
    folder = RunFolder(run if run.is_dir() else run.parent)
    out = args.out or folder.path / "export" / NAMES[args.to]
    is_file = args.to in ("onnx", "torch-export") or (args.to == "timm" and out.suffix in FILES)
    check_free(out, args.force, is_file, KNOWN if args.to == "hub-folder" else FOLDER)
    if args.to == "onnx":
        require_onnx()
    tuned = load_tuned(run, args.opts)
    network = network_of(tuned)
    if args.to == "timm":
        if network.plain is None:
            raise ValueError(f"{network.why_not}. --to onnx, torch-export and hub-folder take the whole network")
        write(network.plain, out)
        error, code = network.plain.error, how_to_load(network.plain, out)
    elif args.to == "onnx":
        error, code = write_onnx(network, out), how_to_load_onnx(out, tuned.pixels)
    elif args.to == "torch-export":
        error, code = write_program(network, out), how_to_load_program(out, tuned.pixels)
    else:
        tuned_file = folder.tuned if run.is_dir() else run
        error, code = write_hub(network, tuned_file, folder.read_result(), out), how_to_load_hub(network, out)
    check(code, tuned, out)
    form = f"merged into timm's {network.plain.architecture}" if network.plain else f"whole ({network.why_not})"
    print(
        f"{out}: {tuned.cfg.DATA.FEATURE} with {methods_of(tuned.cfg)}, {form}; "
        f"its logits differ by at most {error:.0e} of their size\n\nwithout ViTune:\n"
    )
    print("\n".join(f"    {line}" for line in code.lines))


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run_dir", type=given_path, metavar="RUN_DIR", help="a finished run's folder, or its tuned.safetensors"
    )
    parser.add_argument("--to", required=True, choices=NAMES, help="the format")
    parser.add_argument("--out", type=given_path, metavar="PATH", help="the file or folder to write")
    parser.add_argument("--force", action="store_true", help="overwrite an earlier export at --out")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings that override the run's")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str]) -> int:
    return guarded(export, parse_args(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
