"""Which tuners of Hugging Face's peft work here, and with which arguments.

peft is imported inside functions: it brings transformers along, which takes seconds that no other method should cost.
"""

import copy
import difflib
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from ..sites import LINEAR

logger = logging.getLogger(__name__)

# Tuners that cannot work here, and why; those that learn prompts of a language model are recognised by their class.
REFUSED = {
    "ADALORA": "the training loop must call it after every step to move its ranks",
    "ADAPTION_PROMPT": "it adapts the attention of Llama-like language models",
    "POLY": "it needs the number of a task with every image",
    "SHADOW": "it wraps the decoder blocks of a language model",
    "TRAINABLE_TOKENS": "it trains rows of an embedding table, which a vision backbone does not have",
    "XLORA": "it mixes several adapters by the hidden states of a language model",
}
# Arguments that do not work here when they are set, and why.
REFUSED_ARGUMENTS = {
    "alora_invocation_tokens": "images have no invocation tokens",
    "layer_replication": "the backbone keeps its blocks",
    "loftq_config": "it quantises the backbone's weights",
    "megatron_config": "it imports code by name",
    "megatron_core": "it imports code by name",
    "save_only_topk_weights": "what it leaves out is needed to go on with an interrupted run",
    "modules_to_save": "other methods train whole modules: add them to MODEL.TRANSFER_TYPE",
    "target_parameters": "parameters have no site; name the modules in target_modules",
    "trainable_token_indices": "a vision backbone has no embedding table",
    "use_asa": "the training loop must call it after every step",
}
# Starts that change the frozen weights, or wait for data.
REFUSED_STARTS = ("corda", "eva", "loftq", "lora_ga", "olora", "pissa")
REPEATS = (re._constants.MAX_REPEAT, re._constants.MIN_REPEAT)  # (from, to, what)
# Entries of adapter_config.json that say where an adapter came from, not what it is.
BOOKKEEPING = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "modules_to_save", "peft_type", "peft_version"),
    *("revision", "task_type"),
}


def tuners() -> dict[str, type]:
    """Every tuner that the installed peft knows: {"LORA": LoraConfig, ...}."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def find_tuner(name: str) -> str:
    """peft's name of a tuner: "LORA" for "lora" and for "LoraConfig".

    Raises:
        ValueError: peft has no such tuner, or it does not work here.
    """
    from peft import PromptLearningConfig

    configs = tuners()
    names = {kind.upper(): kind for kind in configs}
    names |= {config.__name__.upper(): kind for kind, config in configs.items()}
    if name.upper() not in names:
        near = difflib.get_close_matches(name.upper(), names, n=1, cutoff=0.6)
        usable = ", ".join(kind for kind in configs if not _why_not(kind, configs[kind], PromptLearningConfig))
        raise ValueError(f"peft has no tuner {name!r}{_did_you_mean(near)}; known: {usable}")
    kind = names[name.upper()]
    if reason := _why_not(kind, configs[kind], PromptLearningConfig):
        raise ValueError(f"{kind} does not work here: {reason}")
    return kind


def _why_not(kind: str, config: type, prompt_learning: type) -> str:
    if issubclass(config, prompt_learning):
        return "it learns prompts of a language model; MODEL.TRANSFER_TYPE prompt learns a ViT's"
    return REFUSED.get(kind, "")


def _did_you_mean(near: list[str]) -> str:
    return f"; did you mean {' or '.join(near)}?" if near else ""


def argument_problems(kind: str, arguments: dict) -> list[str]:
    """What is wrong with the arguments of a tuner's config, one sentence each."""
    config = tuners()[kind]
    known = {field.name for field in fields(config) if field.init} - BOOKKEEPING
    problems = []
    for name, value in arguments.items():
        if value and name in REFUSED_ARGUMENTS:
            problems.append(f"{name} does not work here: {REFUSED_ARGUMENTS[name]}")
        elif name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            problems.append(f"{config.__name__} has no {name!r}{_did_you_mean(near)}")
        elif slow := [pattern for pattern in _patterns(name, value) if _may_hang(pattern)]:
            problems.append(f"{name} {slow[0]!r} has nested repetitions: matching it may take for ever")
        elif name.startswith("init_") and str(value).startswith(REFUSED_STARTS):
            problems.append(
                f"{name} {value!r} does not work here: it changes the frozen weights or reads data to start"
            )
    if not problems:
        try:
            with quiet():
                config(**{"target_modules": list(LINEAR), **copy.deepcopy(arguments)})
        except Exception as error:  # peft's checks raise anything
            problems.append(f"{config.__name__}: {error}")
    return problems


def _patterns(name: str, value: Any) -> list[str]:
    """The regular expressions in an argument, as peft takes them."""
    if name in ("target_modules", "exclude_modules", "layers_pattern"):
        several = value if name == "layers_pattern" and isinstance(value, list) else ()
        return [value] if isinstance(value, str) else list(map(str, several))
    return list(map(str, value)) if name.endswith("_pattern") and isinstance(value, dict) else []


def _may_hang(pattern: str) -> bool:
    """Whether matching can take exponential time: something repeats that itself repeats or has alternatives.

    An invalid pattern is left to peft to refuse.
    """
    try:
        left = [(re._parser.parse(pattern), False)]
    except (re.error, RecursionError, OverflowError):
        return len(pattern) > 1000
    while left:
        parsed, repeated = left.pop()
        for kind, argument in parsed:
            repeats = kind in REPEATS and argument[1] > 1
            if repeated and (repeats or kind is re._constants.BRANCH):
                return True
            inner = argument if isinstance(argument, (tuple, list)) else ()
            parts = [part for part in inner if isinstance(part, re._parser.SubPattern)]
            parts += [
                part
                for some in inner
                if isinstance(some, list)
                for part in some
                if isinstance(part, re._parser.SubPattern)
            ]
            left += [(part, repeated or repeats) for part in parts]
    return False


@contextmanager
def quiet() -> Iterator[None]:
    """peft's warnings go to the log, each once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for message in dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught):
        logger.info("peft: %s", message)
