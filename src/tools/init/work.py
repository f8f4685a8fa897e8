"""Copying the configs that ship with ViTune into a folder of one's own."""

import difflib
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...utils.io import write_text
from ...utils.shipped import shipped
from ...utils.yaml import read_yaml
from ..list.configs import command

ENDINGS = (".yaml", ".sh")


@dataclass
class Copied:
    """What became of the files, as paths below the folder of configs.

    Attributes:
        written: they were not there before.
        replaced: they were there with other content.
        kept: they are there with other content.
        same: they were there already.
    """

    written: list[Path] = field(default_factory=list)
    replaced: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    same: list[Path] = field(default_factory=list)


def copy_configs(to: Path, names: Sequence[str] = (), force: bool = False, keep: bool = False) -> Copied:
    """Copy shipped configs to folder ``to``.

    Args:
        names: configs ("digits") or folders of them ("methods"), which come with the files that they are based on;
            none: all of them, and the scripts for Slurm.
        force: replace files that differ from the shipped ones.
        keep: leave such files as they are.

    Raises:
        ValueError: an unknown name, or ``to`` is the folder to copy from.
        FileExistsError: files differ, and neither ``force`` nor ``keep`` is set; the message names them, and nothing
            has been copied.
    """
    source = shipped("configs")
    if to.resolve() == source.resolve():
        raise ValueError(f"{to} is the folder that ships with ViTune; name another place, as in: vitune init lab")
    files = chosen(source, names) if names else [file for file in source.rglob("*") if file.suffix in ENDINGS]
    copied = _compared(source, to, sorted(file.relative_to(source) for file in files))
    if force:
        copied.replaced, copied.kept = copied.kept, []
    if copied.kept and not keep:
        raise FileExistsError(
            f"in {to}, {_listed(copied.kept)} differ{'s' * (len(copied.kept) == 1)} from what ships with ViTune, so "
            "nothing was copied: --keep copies what is missing and leaves edited files alone, --force replaces them"
        )
    for path in (*copied.written, *copied.replaced):
        write_text(to / path, (source / path).read_text(encoding="utf-8"))
    return copied


def _compared(source: Path, to: Path, paths: Sequence[Path]) -> Copied:
    copied = Copied()
    for path in paths:
        if not os.path.lexists(to / path):
            copied.written.append(path)
        elif (to / path).read_bytes() == (source / path).read_bytes():
            copied.same.append(path)
        else:
            copied.kept.append(path)
    return copied


def chosen(source: Path, names: Sequence[str]) -> set[Path]:
    """The files of configs and folders by name, and those that they are based on.

    Raises:
        ValueError: an unknown name.
    """
    configs = named(source)
    folders = {name.rpartition("/")[0] for name in configs} - {""}
    files = set()
    for name in map(_plain, names):
        inside = [file for other, file in configs.items() if other == name or other.startswith(f"{name}/")]
        if not inside:
            near = difflib.get_close_matches(name, [*configs, *folders], 3, 0.5)
            hint = f"did you mean {', '.join(near)}?" if near else "vitune list configs shows all of them"
            raise ValueError(f"no config that ships with ViTune is called {name!r}; {hint}")
        files.update(inside)
    waiting = list(files)
    while waiting:
        new = set(bases(waiting.pop())) - files
        files |= new
        waiting += new
    return files


def named(folder: Path) -> dict[str, Path]:
    """Every config below ``folder``, by its name: "methods/lora" -> folder/methods/lora.yaml."""
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.yaml"))}


def _plain(name: str) -> str:
    """ "configs/digits.yaml" or "methods/", as a shell completes them -> "digits", "methods"."""
    return name.removeprefix("./").removeprefix("configs/").removesuffix("/").removesuffix(".yaml")


def bases(file: Path) -> list[Path]:
    """The files that a config names in ``_BASE_``."""
    named = read_yaml(file).content.get("_BASE_") or []
    return [Path(os.path.normpath(file.parent / name)) for name in ([named] if isinstance(named, str) else named)]


def report(folder: Path, to: Path, names: Sequence[str], copied: Copied) -> str:
    """What was copied to ``to``, which is in ``folder``, and what to do next with the first of ``names``."""
    lines = [f"{to}: {_count(copied.written)} copied" if copied.written else f"{to}: nothing new to copy"]
    lines += [f"  replaced: {_listed(copied.replaced)}"] if copied.replaced else []
    lines += [f"  left as you have edited them: {_listed(copied.kept)}"] if copied.kept else []
    lines += [f"  unchanged: {_count(copied.same)}"] if copied.same else []
    candidates = (*map(_plain, names), "digits", *named(to))
    first = next(name for name in candidates if (to / f"{name}.yaml").is_file())
    steps = [
        *([(f"cd {shlex.quote(str(folder))}", "")] if folder != Path() else []),
        ("vitune list configs", "what there is"),
        (f"${{EDITOR:-vi}} configs/{first}.yaml", "change what you like"),
        (f"{command(to / f'{first}.yaml')} {first}", "reads your file, not the one that ships with ViTune"),
    ]
    width = max(len(step) for step, _ in steps)
    return "\n".join([*lines, "", "next:", *(f"  {step:<{width}}  {why}".rstrip() for step, why in steps)])


def _count(paths: Sequence[Path]) -> str:
    return f"{len(paths)} file{'s' * (len(paths) != 1)}"


def _listed(paths: Sequence[Path], most: int = 5) -> str:
    names = ", ".join(map(str, paths[:most]))
    return names if len(paths) <= most else f"{names} and {len(paths) - most} more"
