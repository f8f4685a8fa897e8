"""``vitune``: one door to everything. Each sub-command is a tool in src/tools, whose folder bears its name.

vitune                                    the sub-commands
vitune train --help                       what one of them does, with examples
eval "$(vitune completion bash)"          names, options, config keys and values on <Tab>; also zsh, fish
"""

import argparse
import difflib
import os
import sys
from importlib import import_module
from types import ModuleType

from . import __version__
from .utils.text import put_out

# Sub-command: (module in src/tools, what it does). Each module is the ``__main__`` of a tool.
COMMANDS = {
    "train": ("train", "one run: train, test, resume, test again"),
    "seeds": ("runs", "the same run with several seeds, and a table"),
    "fit": ("fit", "from a folder of images to a model, and a promise of its accuracy"),
    "tune": ("tune", "a sweep: a grid or random search, chosen on validation images, tested once"),
    "report": ("report", "tables, figures and a page from run folders"),
    "predict": ("predict", "classes and probabilities of image files"),
    "serve": ("serve", "finished runs over HTTP: a page to drop images on, and JSON"),
    "export": ("export", "a finished run for timm, ONNX, torch.export or the Hugging Face Hub"),
    "merge": ("merge", "fold what was learned into a plain timm model"),
    "forgetting": ("forgetting", "what tuned encoders still know of an old data set"),
    "robustness": ("robustness", "accuracy on shifted test sets"),
    "wise": ("wise", "weight-space ensembles between the pre-trained and the tuned model"),
    "compare": ("compare", "agreement, ensembles and calibration of finished runs"),
    "attention": ("attention", "attention maps before and after tuning"),
    "filters": ("filters", "what FreqFit's filters do to frequencies"),
    "sensitivity": ("sensitivity", "SPT's first stage: where a task wants its parameters"),
    "repro": ("repro", "published results that can be repeated, with commands and costs"),
    "prepare": ("prepare", "download, check and convert data sets"),
    "bench": ("bench", "speed and memory, side by side"),
    "demo": ("demo", "three methods on handwritten digits, with a table and a plot"),
    "studies": ("demo_studies", "every tool for finished runs, tried on the digits"),
    "list": ("list", "methods, tasks, backbones, recipes, configs, keys"),
    "init": ("init", "copy the shipped configs, to edit them"),
    "doctor": ("doctor", "what is here: versions, devices, disk, weights, data"),
}
SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")


def tool(name: str) -> ModuleType:
    return import_module(f".tools.{COMMANDS[name][0]}.__main__", __package__)


def main(argv: list[str] | None = None) -> int:
    """The exit status of a sub-command; ``argv`` is by default the process's."""
    if "_ARGCOMPLETE" in os.environ:
        complete()
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        return put_out(overview())
    name, *rest = argv
    if name == "--version":
        print(f"vitune {__version__}")
        return 0
    if name == "completion":
        return completion(rest)
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        print(f"error: unknown command {name!r}{f'; did you mean {near[0]}?' if near else ''}", file=sys.stderr)
        print("vitune alone lists the commands", file=sys.stderr)
        return 2
    return tool(name).main(rest)


def overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    examples = __doc__.partition("\n")[2].rstrip()
    return "\n".join(["usage: vitune COMMAND ...", examples, "", *lines])


def complete() -> None:
    """Answer the shell, and end the process."""
    import argcomplete  # here: only the shell needs it

    parser = argparse.ArgumentParser(prog="vitune")
    commands = parser.add_subparsers()
    for name, (_, summary) in COMMANDS.items():
        tool(name).add_options(commands.add_parser(name, help=summary))
    commands.add_parser("completion").add_argument("shell", choices=SHELLS)
    argcomplete.autocomplete(parser)


def completion(argv: list[str]) -> int:
    """Print what a shell evaluates to complete ``vitune``."""
    import argcomplete  # here: as above

    if len(argv) != 1 or argv[0] not in SHELLS:
        print(f"error: vitune completion takes one of {', '.join(SHELLS)}", file=sys.stderr)
        return 2
    print(argcomplete.shellcode(["vitune"], shell=argv[0]))
    return 0
