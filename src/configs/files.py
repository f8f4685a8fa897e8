"""The settings in YAML files, with the files they are based on, and on a command line."""

import difflib
from pathlib import Path
from typing import Any

import yaml

from ..utils.paths import expand
from ..utils.shipped import shipped
from ..utils.yaml import lines_of, read_yaml
from . import legacy
from .values import flatten, shown

Setting = tuple[str, Any, str]  # key, value, and where it is set

FILES = 100  # that a file may be based on, directly or not


class ConfigError(ValueError):
    """A config that cannot run; the message lists every problem found."""


def find_config(name: str | Path) -> Path:
    """The file of a config: a path as it is, or a name: "digits" for ./configs/digits.yaml, or the one that ships.

    Raises:
        ConfigError: there is none; the message has the nearest names.
    """
    path = Path(_home(name))
    places = [path, *(folder / f"{name}.yaml" for folder in _folders())]
    if (place := next((place for place in places if place.is_file()), None)) is not None:
        return place
    if path.exists():  # a folder, or a device: reading it says what is wrong
        return path
    names = config_names()
    near = difflib.get_close_matches(str(name).removesuffix(".yaml").removeprefix("configs/"), names, n=3, cutoff=0.6)
    near += [other for other in names if other.rpartition("/")[2] == path.stem]
    meant = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    raise _unreadable(
        f"{name} is neither a file nor the name of a config in {' or '.join(map(str, _folders()))}{meant}"
    )


def config_names() -> list[str]:
    """Names that ``find_config`` knows, such as "digits" and "sweeps/photos"."""
    files = [(folder, file) for folder in _folders() for file in sorted(folder.rglob("*.yaml"))]
    return list(dict.fromkeys(file.relative_to(folder).with_suffix("").as_posix() for folder, file in files))


def _folders() -> list[Path]:
    """Where configs have names: one's own, then those that ship."""
    return [Path("configs"), shipped("configs")]


def file_settings(
    config_file: str | Path, problems: list[str], section: str = ""
) -> tuple[list[Setting], dict[str, Any]]:
    """What a YAML file with its ``_BASE_`` chain says, and its top-level ``section``, which is not a setting.

    Raises:
        ConfigError: a file cannot be read at all; all that can be put right beside others goes into ``problems``.
    """
    if not config_file:
        return [], {}
    settings: dict[str, Setting] = {}  # the last value of every key
    taken: dict[str, Any] = {}
    for path, content in _chain(find_config(config_file), problems, ()):
        if "SWEEP" in content and section != "SWEEP":
            del content["SWEEP"]
            problems.append(f"{path} describes a sweep: run it with vitune tune {path}")
        if isinstance(part := content.pop(section, None), dict):
            taken = _merged(taken, part)
        elif part is not None:
            problems.append(f"{section} in {path} is {shown(part)}; it must have keys")
        for key, value in flatten(content).items():
            before = settings.pop(key, (key, None, ""))[1]
            both = isinstance(before, dict) and isinstance(value, dict)
            settings[key] = (key, _merged(before, value) if both else value, str(path))
    return list(settings.values()), taken


def _chain(path: Path, problems: list[str], above: tuple[Path, ...]) -> list[tuple[Path, dict]]:
    """A file's content, after that of the files it is based on.

    Raises:
        ConfigError: one of them cannot be read.
    """
    who = str(path) + (f" (_BASE_ of {above[-1]})" if above else "")
    if path.resolve() in [other.resolve() for other in above]:
        raise _unreadable(f"{' -> '.join(map(str, (*above, path)))}: a file is based on itself")
    try:
        document = read_yaml(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _unreadable(f"{who} cannot be read as YAML settings: {error}") from error
    if not isinstance(document.content, dict):
        raise _unreadable(f"{who} holds no settings, but {shown(document.content)}")
    problems += [f"in {path}, {sentence}" for sentence in [*document.twice, *_differently(document.lines)]]
    bases = document.content.pop("_BASE_", None) or []
    bases = bases if isinstance(bases, list) else [bases]
    if not all(isinstance(base, str) for base in bases):
        raise _unreadable(f"_BASE_ in {path} is {shown(bases)}; it must be a file, or a list of files")
    files = []
    for base in bases:
        files += _chain(_base(path, base), problems, (*above, path))
        if len(files) > FILES:
            raise _unreadable(f"{path} is based on more than {FILES} files")
    return [*files, (path, document.content)]


def _base(path: Path, name: str) -> Path:
    """What ``_BASE_`` names in ``path``: a file, relative to that one, or a config by its name."""
    beside = path.parent / _home(name)
    return beside if beside.exists() or Path(name).suffix in (".yaml", ".yml") else find_config(name)


def _home(path: str | Path) -> str:
    try:
        return expand(str(path))
    except ValueError as error:
        raise _unreadable(str(error)) from error


def _differently(lines: dict[str, list[int]]) -> list[str]:
    """Keys that occur twice because they are written in different ways, or under an old and a new name."""
    places: dict[str, list[int]] = {}
    for key, numbers in lines.items():
        if not key.startswith("SWEEP.") and ".KWARGS." not in key:  # labels and arguments are not keys
            name = legacy.translate(key, "")[0] or key
            places.setdefault(name, []).extend(numbers)
    return [f"{key} occurs twice, in {lines_of(numbers)}" for key, numbers in places.items() if len(numbers) > 1]


def _unreadable(problem: str) -> ConfigError:
    return ConfigError(f"the config has problems:\n  - {problem}")


def _merged(old: dict, new: dict) -> dict:
    """``old`` with what ``new`` says on top, section by section; an empty section changes nothing."""
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        if both or value is not None or key not in merged:
            merged[key] = _merged(merged[key], value) if both else value
    return merged


def pair_settings(overrides: list[str] | tuple[str, ...], problems: list[str]) -> list[Setting]:
    """KEY VALUE pairs of a command line."""
    if len(overrides) % 2:
        problems.append(f"the command line needs pairs of KEY VALUE, but {overrides[-1]!r} has no value")
    pairs = zip(overrides[::2], overrides[1::2], strict=False)
    return [(key, str(text), "the command line") for key, text in pairs]
