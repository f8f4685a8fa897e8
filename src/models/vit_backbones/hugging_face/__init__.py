"""Checkpoints of Hugging Face transformers, by ``DATA.FEATURE hf:<folder>`` or ``hf:<organisation>/<name>``.

They are read without transformers and without a network: the architecture from config.json, the pixels from
preprocessor_config.json, the tensors from model.safetensors, all under timm's names.
"""
