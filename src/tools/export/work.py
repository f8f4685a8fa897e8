"""What ``vitune export`` does: write one of the formats, then load it back and compare its logits."""

import argparse

from ...engine.checkpoint import load_tuned
from ...engine.fit_folder import run_of
from ...engine.results import RunFolder
from ..finished.run import methods_of
from .__main__ import NAMES
from .from_files import check
from .hub import KNOWN, how_to_load_hub, write_hub
from .network import network_of
from .onnx_file import how_to_load_onnx, require_onnx, write_onnx
from .plain import FILES, FOLDER, check_free, how_to_load, write
from .program import how_to_load_program, write_program


def perform(args: argparse.Namespace) -> None:
    run = run_of(args.run_dir)
    folder = RunFolder(run if run.is_dir() else run.parent)
    out = args.out or folder.path / "export" / NAMES[args.to]
    is_file = args.to in ("onnx", "torch-export") or (args.to == "timm" and out.suffix in FILES)
    check_free(out, args.force, is_file, KNOWN if args.to == "hub-folder" else FOLDER)
    if args.to == "onnx":
        require_onnx()
    tuned = load_tuned(run, args.opts)
    network = network_of(tuned)
    if tuned.pixels.native and (args.to in ("onnx", "torch-export") or network.plain is None):
        why = f"; and {network.why_not}" if network.plain is None else ": --to timm and hub-folder are possible"
        raise ValueError(
            "this run sees every image in its own aspect ratio (DATA.RESIZE native), and a traced network "
            f"(onnx, torch-export) would know the grid of one{why}"
        )
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
