"""The data sets that are known by name."""

import pytest

from src.data.tasks import find_task


@pytest.mark.parametrize(("name", "train", "val", "test"), [
    ("stl10", 4500, 500, 8000),  # without validation images of its own: a tenth of the training images
    ("cars-full", 7330, 814, 8041),
    ("dtd-full", 1880, 1880, 1880),
])  # fmt: skip
def test_a_whole_set_has_its_own_validation_images_or_a_tenth(name, train, val, test):
    assert find_task(name).sizes == {"train": train, "val": val, "test": test}
