"""ViTune as a package: what a wheel of it holds, and what importing it costs."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import src
from src.utils.shipped import project, shipped

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


def python(*args: str, cwd: Path = ROOT) -> str:
    return subprocess.run([sys.executable, *args], cwd=cwd, capture_output=True, text=True, check=True).stdout


def tracked(*folders: str) -> list[str]:
    return subprocess.run(
        ["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Built from a copy of what git tracks, so that nothing is written into the checkout."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in tracked("src", "configs", "pretrained", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    (copy / "pretrained" / "ViT-B_16.npz").write_bytes(b"somebody's weights")
    python("-W", "ignore", "-c", BUILD, str(out), cwd=copy)
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_a_wheel_has_every_file_of_the_package_and_the_shipped_folders(wheel):
    code = {name.replace("src/", "vitune/", 1) for name in tracked("src")}
    configs = {f"vitune/shipped/{name}" for name in tracked("configs") if name.endswith((".yaml", ".sh"))}
    weights = {"vitune/shipped/pretrained/README.md", "vitune/shipped/pretrained/vit_micro_glyphs.npz"}
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == code | configs | weights
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_the_version_has_one_source(wheel):
    assert wheel.filename.endswith(f"vitune-{src.__version__}-py3-none-any.whl")


def test_importing_the_package_does_not_load_torch_and_its_functions_do():
    code = "import sys, src; print('torch' in sys.modules, src.tune.__module__, 'torch' in sys.modules)"
    assert python("-c", code).split() == ["False", "src.api", "True"]


def test_every_public_name_is_there_and_others_are_not():
    assert set(src.__all__) <= set(dir(src))
    for name in src.__all__:
        assert getattr(src, name)
    with pytest.raises(AttributeError, match="module 'src' has no attribute 'tun'"):
        src.tun  # noqa: B018


def names(requirements: Iterable[str]) -> set[str]:
    """Of packages, as ``pip`` compares them: ``open_clip_torch>=2.30`` -> ``open-clip-torch``."""
    return {re.split(r"[\[<>=; ]", requirement)[0].replace("_", "-").lower() for requirement in requirements}


def declared() -> dict[str, set[str]]:
    """The packages of ``dependencies``, as "core", and of each extra."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = content["optional-dependencies"]
    return {extra: names(required) for extra, required in {"core": content["dependencies"], **extras}.items()}


def imported() -> Iterator[tuple[str, str]]:
    """(File, package) for every import in src, wherever it stands."""
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            yield from ((str(file.relative_to(ROOT)), module.split(".")[0]) for module in modules)


def test_what_src_imports_is_a_dependency_or_belongs_to_an_extra():
    optional = {"ray": "ray", "onnxruntime": "onnx", "tensorflow": "prepare", "fastapi": "serve", "uvicorn": "serve"}
    with_fastapi = {"starlette": "fastapi", "pydantic": "fastapi"}  # it is built on these
    distributions, packages = packages_distributions(), declared()
    for file, module in imported():
        if module in sys.stdlib_module_names:
            continue
        module = with_fastapi.get(module, module)
        if module in optional:
            assert any(name.startswith(module) for name in packages[optional[module]])
        else:
            assert names(distributions[module]) & packages["core"], f"{file} imports {module}"


def test_the_lock_has_every_package_that_development_needs_and_no_address():
    lock = (ROOT / "requirements.lock").read_text()
    packages = declared()
    wanted = set.union(*(packages[part] for part in ("core", "onnx", "ray", "serve", "docs", "dev", "prepare")))
    assert wanted - names(lock.splitlines()) == {"vitune"}
    assert "://" not in lock


def test_shipped_folders_are_found_in_a_checkout_and_where_vitune_is_installed(tmp_path, monkeypatch):
    assert shipped("configs") == ROOT / "configs"
    assert project() == str(ROOT)
    installed = tmp_path / "site-packages" / "vitune"
    (installed / "shipped" / "configs").mkdir(parents=True)
    monkeypatch.setattr("src.utils.shipped.PACKAGE", installed)
    assert shipped("configs") == installed / "shipped" / "configs"
    assert project() == "vitune"
