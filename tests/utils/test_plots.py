"""Pictures of numbers."""

import pytest
from PIL import Image

from src.utils.plots import panels_chart


@pytest.mark.parametrize(("count", "inches"), [(1, (9.0, 3.8)), (5, (15.4, 5.6))])
def test_a_picture_grows_with_its_panels(count, inches, tmp_path):
    panels = {str(i): {"lora": ([1, 2], [0.5, 0.6], [None, None])} for i in range(count)}
    panels_chart(panels, "x", "y", [tmp_path / "chart.png"], logarithmic=False, joined=True)
    with Image.open(tmp_path / "chart.png") as picture:
        assert picture.size == tuple(round(150 * inch) for inch in inches)
