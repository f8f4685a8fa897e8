"""Words in messages."""

import pytest
from torch import nn

from src.utils.text import a_kind, with_article


@pytest.mark.parametrize(
    "words",
    ["an Eva", "a Swin", "an MViT v2", "a MaxxVit", "an XCiT", "a RegNet", "an EfficientNet", "a SAM", "an RDNet"],
)
def test_articles_go_by_sound(words):
    assert with_article(words.split(" ", 1)[1]) == words


def test_kinds_in_words():
    assert a_kind(nn.Identity()) == "an Identity"
