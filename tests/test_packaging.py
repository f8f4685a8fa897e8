"""ViTune as a package: what a wheel of it holds, and what importing it costs."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import src

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


def test_the_lock_has_every_package_that_an_extra_asks_for_and_no_address():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "requirements.lock").read_text()
    locked = {line.split("==")[0] for line in lock.splitlines() if "==" in line}
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["dev"], *extras["docs"], *extras["onnx"], *extras["ray"]]:
        name = requirement.split(">=")[0].split("==")[0].split("[")[0].replace("_", "-").lower()
        assert name in {*locked, "vitune"}
    assert "://" not in lock
    assert "--index" not in lock.replace("# ", "")
