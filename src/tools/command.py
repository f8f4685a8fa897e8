"""From a command line to an exit status: the one ``main`` of ``vitune`` and of every tool.

A tool is a folder. Its ``__main__.py`` holds the command line: the help text as its docstring, ``add_options`` and
``work``. Nothing there imports torch before ``work`` does, so that help and mistakes show at once.
"""

import argparse
import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..configs.files import ConfigError
from ..utils import launch
from ..utils.logging import setup_logging
from ..utils.signals import REQUEUE, Interrupted, StopSignals

Work = Callable[[argparse.Namespace], int | None]
AddOptions = Callable[[argparse.ArgumentParser], None]

# What looks like the first KEY of KEY VALUE pairs, and not like the name of a config.
KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.\w+)*")
LESS_MEMORY = (
    "less memory: SOLVER.MEMORY_GB with the GiB there are; or SOLVER.AMP auto, MODEL.RECOMPUTE auto, "
    "SOLVER.ACCUMULATE 4, DATA.EVAL_BATCH_SIZE 32"
)
GOES_ON = "run the same command again to continue"
# Objects that are made before Python looks for unreachable ones. By its own 700 to 2,000, a fifth of the seconds that
# importing torch, timm and peft takes goes into looking at what they define, where nothing is unreachable.
COLLECT_AFTER = 20_000


def run(
    name: str,
    text: str,
    add_options: AddOptions,
    work: Work,
    argv: Sequence[str],
    goes_on: str = "",
    stderr: Callable[[argparse.Namespace], bool] = lambda args: False,
    log: bool = True,
) -> int:
    """Parse ``argv`` and do ``work``.

    An error is one line on stderr, or Python's traceback where VITUNE_DEBUG is in the environment.

    Args:
        name: the sub-command of ``vitune``.
        text: its help, with an example.
        goes_on: what to tell a user who interrupts it, where nothing is lost.
        stderr: whether to log to stderr, because stdout has the results.
        log: False for a tool that sets its log up itself.

    Returns:
        the exit status: what ``work`` returns, 0 for None; 2 for a config or a command line with problems; 1 for
        anything else that a user can cause; 75 where a signal stopped what the same command goes on with, 128 + the
        signal's number where it stopped anything else.
    """
    args = parse(name, text, add_options, argv)
    gc.set_threshold(COLLECT_AFTER)
    try:
        with StopSignals():
            if log:
                setup_logging(stderr=stderr(args))
            resolve_config(args)
            return work(args) or 0
    except Interrupted as stopped:
        if launch.expected_rank() == 0:
            print(f"stopped by {stopped}{f'; {goes_on}' if goes_on else ''}", file=sys.stderr)
        return REQUEUE if goes_on else 128 + signal.Signals[str(stopped)]
    except expected_errors() as error:  # evaluated here, when torch may have been loaded
        if os.environ.get("VITUNE_DEBUG"):
            raise
        return fail(error)


def parse(name: str, text: str, add_options: AddOptions, argv: Sequence[str]) -> argparse.Namespace:
    """Options and positional arguments, in any order."""
    return make_parser(name, text, add_options).parse_intermixed_args(argv)


def make_parser(name: str, text: str, add_options: AddOptions) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"vitune {name}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    return parser


def fail(error: Exception) -> int:
    """Print an error; its exit status."""
    torch = sys.modules.get("torch")
    hint = f"\n{LESS_MEMORY}" if torch and isinstance(error, torch.OutOfMemoryError) else ""
    count = launch.expected()
    who = f"process {launch.expected_rank()} of {count}: " if count > 1 else ""
    print(f"error: {who}{error}{hint}", file=sys.stderr)
    return 2 if isinstance(error, ConfigError) else 1


def expected_errors() -> tuple[type[Exception], ...]:
    """Errors that a user can cause; those of torch only where it is loaded."""
    errors: tuple[type[Exception], ...] = (ValueError, OSError, MemoryError, FloatingPointError)
    if torch := sys.modules.get("torch"):
        errors += (torch.OutOfMemoryError, torch.distributed.DistError)
    return errors


# ---- options that several commands have ----


def add_config(parser: argparse.ArgumentParser, what: str = "settings") -> None:
    """A config and KEY VALUE pairs: ``args.config_file`` and ``args.opts``.

    Args:
        what: that the config describes, for the help.
    """
    parser.add_argument("--config-file", default="", metavar="CONFIG", help=f"the config, as an option: {what}")
    parser.add_argument(
        "opts",
        nargs="*",
        metavar="[CONFIG] KEY VALUE",
        help="a YAML file or the name of a shipped config (vitune list configs); then settings that override its own",
    ).completer = complete_settings


def add_settings(parser: argparse.ArgumentParser, of: str = "the run's") -> None:
    """KEY VALUE pairs after other arguments: ``args.opts``."""
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help=f"settings that override {of}"
    ).completer = complete_settings


def resolve_config(args: argparse.Namespace) -> None:
    """Take the config out of ``args.opts`` where it is the first of them.

    Raises:
        ConfigError: two configs are given.
    """
    if not getattr(args, "opts", None) or not hasattr(args, "config_file") or not is_config(args.opts):
        return
    first, *settings = args.opts
    if args.config_file:
        raise ConfigError(
            f"two configs are given, {args.config_file} and {first}: name one, and after it KEY VALUE pairs"
        )
    args.config_file, args.opts = first, settings


def is_config(words: Sequence[str]) -> bool:
    """Whether the first word names a config, and is not the first KEY."""
    first = words[0]
    if Path(first).is_file() or first.endswith((".yaml", ".yml")):
        return True
    misspelt_key = "." in first and len(words) % 2 == 0  # solver.base_lr 0.1
    return not KEY.fullmatch(first) and not misspelt_key


# ---- completion in the shell ----


def complete_settings(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """What may come next in ``[CONFIG] KEY VALUE ...``: names of configs and keys, or a key's choices."""
    from ..configs.files import config_names
    from ..configs.reference import all_keys

    words, keys = list(getattr(parsed_args, "opts", None) or []), all_keys()
    takes_config = hasattr(parsed_args, "config_file")
    if words and takes_config and is_config(words):
        words = words[1:]
    elif not words and takes_config:
        return [*config_names(), *keys]
    if len(words) % 2 == 0:
        return list(keys)
    if names := names_for(words[-1]):
        before = prefix.rpartition("+")[0]  # lora+ssf
        return [f"{before}+{name}" if before else name for name in names]
    key = keys.get(words[-1])
    if key is None:
        return []
    return ["True", "False"] if isinstance(key.default, bool) else [str(choice) for choice in key.choices or ()]


def names_for(key: str) -> list[str]:
    """The names that a key may have where they stand in a table of their own: methods, backbones, data sets."""
    from ..configs.catalogue import catalogue
    from ..data.tasks import TASKS
    from ..models.vit_backbones.hugging_face.place import cached

    if key == "MODEL.TRANSFER_TYPE":
        return ["linear", *catalogue().methods, *catalogue().shorthands]
    if key == "DATA.FEATURE":
        return [*catalogue().backbones, *catalogue().aliases, *cached()]
    return list(TASKS) if key == "DATA.NAME" else []
