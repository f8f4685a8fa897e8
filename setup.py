"""What pyproject.toml cannot say: the folder ``src`` is the package ``vitune``, and holds the shipped folders."""

from setuptools import find_packages, setup

setup(
    packages=[
        "vitune",
        *(f"vitune.{name}" for name in find_packages("src")),
        "vitune.shipped.configs",
        "vitune.shipped.pretrained",
    ],
    package_dir={"vitune": "src", "vitune.shipped.configs": "configs", "vitune.shipped.pretrained": "pretrained"},
    package_data={
        "vitune": ["py.typed", "**/*.csv", "**/*.json", "**/*.css", "**/*.html", "**/*.js"],
        "vitune.shipped.configs": ["**/*.yaml", "*.sh"],
        "vitune.shipped.pretrained": ["README.md", "vit_micro_glyphs.npz"],  # not the weights that users put there
    },
)
