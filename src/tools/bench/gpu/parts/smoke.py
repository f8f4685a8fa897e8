"""Every method and several kinds of network: logits and gradients against the CPU, half precision, waits in a step."""

import copy
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from .....engine.held import held
from .....engine.precision import resolve_amp, set_backends
from .....engine.step import TrainingStep
from .....models.families import family_of
from .....models.vit_models import FREQFIT_METHODS, METHODS, TunedViT
from ....list.specimens import SPECIMENS, Specimen
from ..finding import Finding, Room, checked
from ..subjects import CLASSES, config, small, step_of

BY_TITLE = {specimen.title: specimen for section in SPECIMENS.values() for specimen in section}
FAMILIES = ("registers", "average", "DINOv3", "NaFlex", "Swin", "Hiera", "ConvNeXt", "FastViT", "ResNet")
ELSEWHERE = ("lora", "ssf", "adaptformer", "prompt", "vqt", "convpass", "end2end", "spt_lora")
LOGITS, GRADIENTS = 2e-4, 5e-3  # largest differences from the CPU, relative to the largest value, or norm, in float32


def cases(tiny: bool) -> Iterator[tuple[str, str, str]]:
    """(specimen, methods, FREQFIT)."""
    alone = [name for name in METHODS if name not in FREQFIT_METHODS.values()]
    if tiny:
        alone = ["lora", "ssf", "prompt"]
    yield from (("ViT", name, freqfit) for freqfit in ("", "freqfit") for name in alone)
    if not tiny:
        yield from (("ViT", "lora", freqfit) for freqfit in FREQFIT_METHODS)
        yield ("ViT", "lora+adaptformer+prompt", "freqfit")
        yield from ((title, name, "") for title in FAMILIES for name in ELSEWHERE)


def run(room: Room) -> Iterator[Finding]:
    device = torch.device(room.device)
    set_backends(config("SOLVER.AMP", "off"), device)
    tried, refused, wrong, broken, waits, logits, gradients = 0, 0, [], [], {}, 0.0, 0.0
    halves = [amp for amp in ("bf16", "fp16") if room.on_gpu and _has(amp, device)] or ["bf16"]
    everything = list(cases(room.tiny))
    for title, methods, freqfit in everything:
        if room.left() < 10:
            break
        name = f"{title}: {methods}" + (f", FREQFIT {freqfit}" if freqfit else "")
        try:
            model, images = _subject(BY_TITLE[title], methods, freqfit, room.folder)
        except ValueError:  # it says that it does not fit this network
            refused += 1
            continue
        tried += 1
        try:
            of_logits, of_gradients = against_cpu(model, images, device)
            logits, gradients = max(logits, of_logits), max(gradients, of_gradients)
            if not (of_logits < LOGITS and of_gradients < GRADIENTS):
                wrong.append(f"{name} ({of_logits:.1e}, {of_gradients:.1e})")
            on_device = copy.deepcopy(model).to(device)
            for amp in halves:
                if not torch.isfinite(_step(amp, on_device, images.to(device), waits, name)):
                    broken.append(f"{name} in {amp}")
        except Exception as error:  # of one method; the others are tried all the same
            wrong.append(f"{name}: {type(error).__name__} {(str(error).splitlines() or [''])[0][:150]}")
    count = f"{tried} of methods and networks, {refused} refused"
    if tried + refused < len(everything):
        text = f"{len(everything) - tried - refused} of {len(everything)} methods and networks"
        yield Finding("not tried for lack of time", text)
    yield checked(
        "against the CPU, float32",
        f"{count}; logits differ by at most {logits:.1e}, gradients by {gradients:.1e}"
        + (f"; {_list(wrong)}" if wrong else ""),
        not wrong,
        logits=logits,
        gradients=gradients,
        wrong=wrong,
    )
    yield checked(f"losses in {', '.join(halves)}", "all finite" if not broken else _list(broken), not broken)
    if room.on_gpu:
        text = "none" if not waits else _list([f"{name} {count}x" for name, count in waits.items()])
        yield checked("waits for the GPU in a step", text, not waits, waits=waits)


def _has(amp: str, device: torch.device) -> bool:
    try:
        return bool(resolve_amp(amp, device))
    except ValueError:
        return False


def _list(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _subject(specimen: Specimen, methods: str, freqfit: str, folder: Path) -> tuple[TunedViT, Tensor]:
    model = small(methods, freqfit, specimen, folder)
    size = (64, 64) if family_of(model.vit).any_size else family_of(model.vit).image_size(model.vit)
    return model, torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(0))


def against_cpu(model: TunedViT, images: Tensor, device: torch.device) -> tuple[float, float]:
    """The largest relative differences of logits and gradients."""
    here, there = copy.deepcopy(model).eval(), copy.deepcopy(model).to(device).eval()
    (one, own), (other, theirs) = (_gradients(m, images.to(d)) for m, d in ((here, "cpu"), (there, device)))
    if own.keys() != theirs.keys():
        return math.inf, math.inf
    largest = max(gradient.norm() for gradient in own.values())
    slopes = [(own[name] - theirs[name]).norm() / (own[name].norm() + 1e-6 * largest) for name in own]
    return ((one - other).abs().max() / one.abs().max()).item(), max(slopes).item()


def _gradients(model: TunedViT, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    logits = model(images)
    nn.functional.cross_entropy(logits, _labels(images)).backward()
    named = {name: param.grad.cpu() for name, param in model.named_parameters() if param.grad is not None}
    return logits.detach().cpu(), named


def _labels(images: Tensor) -> Tensor:
    return torch.arange(len(images), device=images.device) % CLASSES


def _step(amp: str, model: TunedViT, images: Tensor, waits: dict[str, int], name: str) -> Tensor:
    """The loss of a step, on a GPU of the third; ``waits`` gets how often that one waited for the GPU."""
    cfg = config("SOLVER.AMP", amp, "DATA.CROPSIZE", str(images.shape[-1]))
    with held(model, cfg, images.device):
        return _third(step_of(cfg, model), images, waits, name if amp != "fp16" else "")


def _third(step: TrainingStep, images: Tensor, waits: dict[str, int], name: str) -> Tensor:
    """``name`` is "" where waits do not count: float16's scaler asks whether gradients are finite."""
    step.network.train()
    labels = _labels(images)
    if not images.is_cuda:
        return step(images, labels)
    step(images, labels)
    step(images, labels)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            loss = step(images, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    count = sum("synchroniz" in str(warning.message) for warning in heard)
    if count and name:
        waits[name] = count
    return loss
