"""Fold what a run learned into its ViT: a plain timm model, which needs nothing of this project.

    python -m src.tools.merge output/digits/vit_micro_glyphs/lora/lr0.005_... merged/digits
    python -m src.tools.merge output/digits/vit_micro_glyphs/lora/lr0.005_... digits.safetensors

OUT ending in .safetensors, .pth or .pt becomes a file: timm's state dict, classifier included. Any other OUT becomes a
folder that timm loads by itself: its config.json also has the class names and how images are prepared. Where timm's
transform cannot make the run's pixels (it smooths images that it makes smaller, VPT's pipeline does not), the printed
lines make them with Pillow and numpy.

Before anything is written, the merged model must give the tuned model's logits. KEY VALUE pairs override the run's
settings, such as MODEL.MODEL_ROOT and the folder in which the backbone's weights are now.

Exit status: 0 when OUT was written, 2 for settings with problems, 1 for anything else, such as a method that does not
fold.
"""

import argparse
import os
import sys

from ..configs.config import ConfigError
from ..engine.checkpoint import load_tuned
from ..utils.logging import setup_logging
from ..utils.paths import given_path
from .export.from_files import check
from .export.plain import FILES, check_free, how_to_load, merge, named, write


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run_dir", type=given_path, metavar="RUN_DIR", help="a finished run's folder, or its tuned.safetensors"
    )
    parser.add_argument("out", metavar="OUT", type=given_path, help="the folder or file to write")
    parser.add_argument("--force", action="store_true", help="overwrite an earlier merged model at OUT")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings that override the run's")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str]) -> int:
    args = parse_args(argv)
    setup_logging()
    try:
        check_free(args.out, args.force, args.out.suffix in FILES)
        tuned = load_tuned(args.run_dir, args.opts)
        plain = merge(tuned)
        write(plain, args.out)
        tuned.model.float()
        check(code := how_to_load(plain, args.out), tuned, args.out)
    except (ValueError, OSError) as error:
        if os.environ.get("VITUNE_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    print(
        f"{args.out}: {tuned.cfg.DATA.FEATURE} with {named(tuned.model)}, as timm's {plain.architecture} with "
        f"{sum(tensor.numel() for tensor in plain.state.values()):,} parameters; logits differ by at most "
        f"{plain.error:.0e} of their size\n\nplain timm loads it:\n"
    )
    print("\n".join(f"    {line}" for line in code.lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
