"""Answer over HTTP on this machine: a page to drop images on, and JSON for programs.

    vitune serve RUN_DIR
    vitune serve cats=output/a/run dogs=output/b/run --port 8080
    vitune serve output/digits DEVICE cpu

FOLDERS are finished runs, or folders with runs below them; NAME=FOLDER names a run. Runs on one
backbone share its weights in memory. A run that cannot be loaded is left out, with a note, if another
can be. http://127.0.0.1:8000 is the page, /openapi.json describes the rest:

    curl -F images=@cat.jpg -F images=@dog.jpg "http://127.0.0.1:8000/predict?top=3"
    curl http://127.0.0.1:8000/models
    curl --json '{"folder": "output/b/run"}' http://127.0.0.1:8000/models
    curl -X DELETE http://127.0.0.1:8000/models/dogs

Models can be loaded only from the FOLDERS named here. KEY VALUE pairs override the settings of every
run, such as DEVICE cpu, SOLVER.AMP bf16, DATA.MAX_PIXELS 20000000, or MODEL.MODEL_ROOT if the weights
have moved.

Only this machine can reach the server unless --host says otherwise. There is no password and no
encryption. Images are kept in memory until they are answered, and never written to disk.

Exit status: 0 if it was stopped by Ctrl-C or SIGTERM.
"""

import argparse
import importlib.util
import sys

from ...configs.files import ConfigError
from ...utils.shipped import project
from .. import command
from .limits import Limits

NEEDS = ("fastapi", "uvicorn", "python_multipart")


def add_options(parser: argparse.ArgumentParser) -> None:
    limits = Limits()
    parser.usage = "%(prog)s FOLDER... [options] [KEY VALUE ...]"
    parser.add_argument("paths", nargs="+", metavar="FOLDER... KEY VALUE", help="see above")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at; 0.0.0.0 lets every machine in")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one (default: %(default)s)")
    parser.add_argument(
        "--max-upload", type=float, default=limits.upload / 2**20, metavar="MIB", help="of a request (%(default)g)"
    )
    parser.add_argument("--max-images", type=int, default=limits.images, metavar="N", help="of a request (%(default)s)")
    parser.add_argument(
        "--max-waiting", type=int, default=limits.waiting, metavar="N", help="requests at once (%(default)s)"
    )
    parser.add_argument("--max-models", type=int, default=limits.models, metavar="N", help="at once (%(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=limits.seconds, metavar="SECONDS", help="to send, and to answer (%(default)g)"
    )
    parser.add_argument("--batch", type=int, default=limits.batch, metavar="N", help="images at once (%(default)s)")
    parser.add_argument(
        "--window",
        type=float,
        default=limits.window * 1000,
        metavar="MS",
        help="how long the first image of a batch waits for others (%(default)g)",
    )


def work(args: argparse.Namespace) -> int | None:
    limits = Limits(
        upload=int(args.max_upload * 2**20),
        images=args.max_images,
        waiting=args.max_waiting,
        models=args.max_models,
        seconds=args.timeout,
        batch=args.batch,
        window=args.window / 1000,
    )
    if wrong := limits.problems():
        raise ConfigError(wrong)
    if not 0 <= args.port < 2**16:
        raise ConfigError(f"--port {args.port}: it must be between 0 and 65535")
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"vitune serve needs {', '.join(missing)}: pip install '{project()}[serve]'")
    from .work import perform  # here: torch takes seconds to load

    return perform(args, limits)


def main(argv: list[str]) -> int:
    return command.run("serve", __doc__, add_options, work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
