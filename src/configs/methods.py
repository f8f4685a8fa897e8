"""Which methods a config names: MODEL.TRANSFER_TYPE and FREQFIT. Without torch: see catalogue.py."""

import difflib
from collections.abc import Iterable

from fvcore.common.config import CfgNode

from .catalogue import catalogue


def config_name(method: str) -> str:
    """The node of a method's keys under ``MODEL``: "tinytl-bias" -> "TINYTL_BIAS"."""
    return method.upper().replace("-", "_")


def method_keys(cfg: CfgNode, method: str, implied: dict) -> CfgNode:
    """The keys of one method, from the node ``MODEL``, with those that a shorthand such as "partial-2" implies."""
    keys = cfg.get(config_name(method), CfgNode()).clone()
    keys.defrost()
    keys.update(implied)
    return keys


def parse(transfer_type: str, freqfit: str = "") -> dict[str, dict]:
    """The methods that ``MODEL.TRANSFER_TYPE`` and ``FREQFIT`` name, in METHODS order, with the keys they imply.

    ``parse("lora+partial-2", "freqfit")`` is ``{"freqfit": {}, "lora": {}, "partial": {"NUM_BLOCKS": 2}}``.

    Raises:
        ValueError: an unknown method, one named twice, or a combination that makes no sense.
    """
    methods, problems = read_methods(transfer_type, freqfit)
    if problems:
        raise ValueError("; ".join(problems))
    return methods


def read_methods(transfer_type: str, freqfit: str = "") -> tuple[dict[str, dict], list[str]]:
    """What ``parse`` returns, of the names that are right, and one sentence for each problem."""
    facts, methods, problems = catalogue(), {}, []
    where = f"MODEL.TRANSFER_TYPE {transfer_type!r}"
    for name in (part.strip() for part in transfer_type.split("+")):
        if name == "linear":
            continue
        method, keys = facts.shorthands.get(name, (name, {}))
        if name.startswith("partial-") and name[len("partial-") :].isdecimal():
            method, keys = "partial", {"NUM_BLOCKS": int(name[len("partial-") :])}
        if method not in facts.methods:
            problems.append(_unknown(name, where))
        elif method in methods:
            problems.append(f"{where} names {method} twice")
        else:
            methods[method] = keys
    if freqfit in facts.filters:
        methods.setdefault(facts.filters[freqfit], {})
    elif freqfit:
        problems.append(f"unknown FREQFIT {freqfit!r}; known: None, {', '.join(facts.filters)}")
    problems += [f"{where}: {reason}" for reason in _conflicts(methods)]
    return {name: methods[name] for name in facts.methods if name in methods}, problems


def _unknown(name: str, where: str) -> str:
    names = ["linear", *catalogue().methods, *catalogue().shorthands, "partial-<k>"]
    near = difflib.get_close_matches(name, names, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"unknown method {name!r} in {where}{meant}; known: {', '.join(names)}"


def _conflicts(methods: Iterable[str]) -> list[str]:
    """Why methods do not go together."""
    facts, reasons = catalogue(), []
    if "end2end" in methods and (redundant := sorted(name for name in methods if facts.methods[name].in_end2end)):
        reasons.append(
            f"end2end trains every weight, so {', '.join(redundant)} adds nothing it could not learn; name one of them "
            "alone"
        )
    for names, reason in facts.refused:
        if {*names} <= {*methods}:
            reasons.append(f"{reason}; name one of them")
    return reasons


def suited_lr(methods: Iterable[str]) -> float:
    """The learning rate of AdamW that suits these methods together; 0.03 for the head alone."""
    return min((catalogue().methods[name].adamw_lr for name in methods), default=0.03)
