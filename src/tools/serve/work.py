"""What ``vitune serve`` does: loads the runs, then answers until a signal stops it."""

import argparse
import ipaddress
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from ...configs.config import ConfigError
from ...utils.signals import Interrupted
from ...utils.threads import threads
from ..finished.command import paths_and_settings
from .app import make_app
from .batches import Batches
from .folders import runs_of
from .limits import Limits
from .models import Models

logger = logging.getLogger(__name__)

LOCAL = ("localhost", "127.0.0.1", "[::1]")
DECODERS = 4  # threads at most
CONNECTIONS = 256  # beyond those whose requests wait
PATIENCE = 10  # seconds for requests that are being answered when a signal comes


def perform(args: argparse.Namespace, limits: Limits) -> int:
    """Serve until SIGINT or SIGTERM; the exit status."""
    folders, settings = paths_and_settings(args.paths)
    runs, roots = runs_of(folders)
    if len(runs) > limits.models:
        raise ConfigError(f"{len(runs)} runs are there, and --max-models is {limits.models}: name fewer, or raise it")
    listening = _listen(args.host, args.port)  # before runs are loaded, which may take long
    with listening, Batches(limits) as batches, threads(min(DECODERS, os.cpu_count() or 1)) as pool:
        shelf = Models(roots, settings, limits)
        load_all(shelf, runs)
        app = make_app(shelf, limits, batches, pool, _hosts(args.host))
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                log_level=logging.WARNING,
                access_log=False,
                server_header=False,
                limit_concurrency=limits.waiting + CONNECTIONS,
                timeout_graceful_shutdown=PATIENCE,
            )
        )
        if not _is_local(args.host):
            logger.warning(
                "note: --host %s lets other machines ask, load and drop models, without password or encryption",
                args.host,
            )
        address = f"http://{_in_url(args.host)}:{listening.getsockname()[1]}"
        logger.info("%d %s at %s (Ctrl-C stops)", len(shelf), "model" if len(shelf) == 1 else "models", address)
        try:
            server.run(sockets=[listening])
        except Interrupted as stopped:  # uvicorn has ended, and raises the signal again
            logger.info("stopped by %s", stopped)
    return 0


def load_all(shelf: Models, runs: Sequence[tuple[str, Path]]) -> None:
    """Load the (name, folder) that can be loaded, and warn of the others.

    Raises:
        ValueError, OSError, MemoryError: none can be; why the first cannot.
    """
    failed: list[tuple[Path, Exception]] = []
    for name, folder in runs:
        try:
            shelf.load(folder, name)
        except (ValueError, OSError, MemoryError) as error:
            failed.append((folder, error))
    for folder, error in failed if len(runs) > 1 else ():
        logger.warning("note: %s is left out: %s", folder, error)
    if not len(shelf):
        raise failed[0][1]


def _listen(host: str, port: int) -> socket.socket:
    """A socket that is bound.

    Raises:
        OSError: the address is taken, or is not this machine's.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        where = f"{_in_url(host)}:{port}"
        raise OSError(f"{where}: {error.strerror or error}; choose another --port, or --host") from error


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hosts(host: str) -> set[str]:
    """The names that requests may have for the server; none: any."""
    anywhere = host in ("", "0.0.0.0", "::")
    return set() if anywhere else {*LOCAL, _in_url(host).lower()}


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
