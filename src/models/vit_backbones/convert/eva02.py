"""BAAI's EVA-02 (.pt)."""

from pathlib import Path

from ..fit import unwrapped
from ..tensors import StateDict, read_content, single
from .names import drop, replaced

NAMES = {
    "mlp.ffn_ln.": "mlp.norm.",
    "attn.inner_attn_ln.": "attn.norm.",
    "mlp.w12.": "mlp.fc1.",  # gate and value in one map
    "mlp.w1.": "mlp.fc1_g.",
    "mlp.w2.": "mlp.fc1_x.",
    "mlp.w3.": "mlp.fc2.",
}


def eva02(path: Path) -> StateDict:
    """EVA-02 after masked pre-training, whose final norm becomes timm's ``fc_norm``, or after fine-tuning.

    What it predicts masked patches with and classifiers are dropped; its rotations are computed, not read.
    """
    state, _ = unwrapped(read_content(path))
    state = drop(state, "mask_token", "lm_head.", "head.")
    apart = any(name.endswith(".attn.q_proj.weight") for name in state)
    renamed = {}
    for name, tensor in state.items():
        if "rope." in name:
            continue
        name = replaced(name, NAMES)
        if apart:  # queries, keys and values have a map each, and so have their biases
            name = replaced(name, {"attn.q_bias": "attn.q_proj.bias", "attn.v_bias": "attn.v_proj.bias"})
        renamed[f"fc_{name}" if name.startswith("norm.") else name] = single(tensor)
    return renamed
