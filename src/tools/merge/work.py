"""What ``vitune merge`` does: fold, compare logits, write."""

import argparse

from ...engine.checkpoint import load_tuned
from ..export.from_files import check
from ..export.plain import FILES, check_free, how_to_load, merge, named, write


def perform(args: argparse.Namespace) -> None:
    check_free(args.out, args.force, args.out.suffix in FILES)
    tuned = load_tuned(args.run_dir, args.opts)
    plain = merge(tuned)
    write(plain, args.out)
    tuned.model.float()
    check(code := how_to_load(plain, args.out), tuned, args.out)
    print(
        f"{args.out}: {tuned.cfg.DATA.FEATURE} with {named(tuned.model)}, as timm's {plain.architecture} with "
        f"{sum(tensor.numel() for tensor in plain.state.values()):,} parameters; logits differ by at most "
        f"{plain.error:.0e} of their size\n\nplain timm loads it:\n"
    )
    print("\n".join(f"    {line}" for line in code.lines))
