"""What "auto" and -1 come to in a config, so that whatever is written, hashed or reported says what acts."""

from collections.abc import Iterable

from fvcore.common.config import CfgNode

from . import checks
from .catalogue import catalogue
from .methods import read_methods, suited_lr


def resolve(cfg: CfgNode, for_vpt: bool, for_epochs: bool) -> list[str]:
    """Replace "auto" and -1 in ``cfg``.

    Args:
        for_epochs: TOTAL_EPOCH is meant, however few steps that makes.

    Returns:
        what may surprise of that.
    """
    data, model, solver, notes = cfg.DATA, cfg.MODEL, cfg.SOLVER, []
    if for_epochs:
        solver.MIN_STEPS = 0 if solver.MIN_STEPS == -1 else solver.MIN_STEPS
    methods, wrong = read_methods(model.TRANSFER_TYPE, cfg.FREQFIT)
    if not wrong:
        notes += _resolve_by_methods(cfg, methods)
    else:  # ``checks`` says why, and need not say more
        solver.OPTIMIZER = "adamw" if solver.OPTIMIZER == "auto" else solver.OPTIMIZER
        if solver.OPTIMIZER == "adamw" and solver.BASE_LR == -1:
            solver.BASE_LR = suited_lr(())
        solver.MIN_STEPS = 0 if solver.MIN_STEPS == -1 else solver.MIN_STEPS
        data.AUGMENT = "" if data.AUGMENT == "auto" else data.AUGMENT
    if model.HEAD_INIT == "auto":
        model.HEAD_INIT = "vpt" if for_vpt or solver.OPTIMIZER == "sgd" else "zero"
    if solver.DECAY == "auto" and (for_vpt or solver.OPTIMIZER != "adamw" or not _has_own_decay(methods)):
        solver.DECAY = "vpt"
    if solver.MAX_STEPS or solver.WARMUP_STEPS:
        solver.SCHEDULE_PER = "step"
    return notes


def _resolve_by_methods(cfg: CfgNode, methods: dict[str, dict]) -> list[str]:
    """The same for what suits a method: its optimizer and learning rate, how long it trains, what images look like."""
    data, solver, notes = cfg.DATA, cfg.SOLVER, []
    if data.AUGMENT == "auto":
        data.AUGMENT = "crop_flip" if methods else "none"
    if solver.OPTIMIZER == "auto":
        reasons = checks.not_logistic(cfg)
        solver.OPTIMIZER = "adamw" if reasons else "lbfgs"
        if reasons and not methods:
            notes.append(f"the head is trained, not a logistic regression, which has no place for {', '.join(reasons)}")
    if solver.OPTIMIZER == "lbfgs":
        solver.BASE_LR, solver.MIN_STEPS, solver.DECAY = 1.0, 0, "none"
    if solver.BASE_LR == -1 and solver.OPTIMIZER == "adamw":
        solver.BASE_LR = suited_lr(methods)
    if solver.MIN_STEPS == -1:
        solver.MIN_STEPS = 0 if solver.MAX_STEPS else 300 if methods else 2000
    return notes


def _has_own_decay(methods: Iterable[str]) -> bool:
    """Whether the original code of one of the methods says what decays."""
    return any(catalogue().methods[name].own_decay for name in methods)
