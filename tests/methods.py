"""Which methods and mixes of methods are tested, and how they are built on the tiny ViT."""

import pytest
from conftest import make_model

from src.models.vit_models import METHODS, TunedViT

MIXES = [
    ("lora", "freqfit"),
    ("lora+ssf", ""),
    ("prompt+tinytl-bias", ""),
    ("prompt+bias", "freqfit"),
    ("adapter+lora", "freqfit_real"),
    ("prompt+adapter", "ssf"),
    ("partial-2", "freqfit"),
    ("side", "freqfit"),
    ("cls-reinit+prompt", ""),
    ("end2end", "freqfit"),
    ("prompt-noupdate", ""),
    ("lora+adapter+ssf+prompt+tinytl-bias+partial", "freqfit"),
    ("convpass+prompt", "freqfit"),
    ("vqt+prompt+adaptformer+lora", "freqfit"),
    ("vqt+repadapter+houlsby", ""),
    ("difffit+ssf+fact_tk+lora", "freqfit"),
    ("adaptformer+convpass+houlsby+prompt", ""),
    ("layernorm+repadapter+fact_tt+fact_tk", ""),
    ("rlrr+lora", "freqfit"),
    ("rlrr+ssf+adapter", ""),
    ("block+lora+ssf", ""),
    ("block+prompt", "freqfit"),
    ("vqt+block+partial-2", ""),
    ("block+end2end", ""),
    ("spt_lora+prompt", "freqfit"),
    ("spt_adapter+rlrr", ""),
    ("peft", "freqfit"),
    ("peft+lora+ssf", ""),
    ("vera+prompt+adapter", ""),
    ("boft+ssf+tinytl-bias", "freqfit_real"),
    ("vqt+peft+partial", ""),
]


ALONE = [(name, "") for name in ["linear", *METHODS]]


def each(pairs: list[tuple[str, str]]) -> pytest.MarkDecorator:
    """A test for each of these pairs of methods and FREQFIT."""
    return pytest.mark.parametrize(("names", "freqfit"), pairs, ids=["+".join(filter(None, pair)) for pair in pairs])


every_method = each(ALONE + MIXES)


def build(names, freqfit="", **keys) -> TunedViT:
    keys = {"MODEL__PROMPT__DEEP": True, "MODEL__FFT__FREQ": 300, **keys}  # 3000 are more than 32 x 32 entries
    return make_model(names, freqfit, **keys)
