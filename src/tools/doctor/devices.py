"""What torch computes on: the CPU's instructions and threads, and GPUs. Torch is imported here."""

import os
import shutil
import subprocess

from .section import Section, size

IMPORTED = ("torchvision", "timm", "peft")
GET_TORCH = "https://pytorch.org/get-started/locally"


def devices(name: str) -> Section:
    """What torch finds, and whether it computes there.

    Args:
        name: DEVICE.
    """
    section = Section("Devices")
    if not _imports(section):
        return section
    import torch

    from ...utils.hardware import cpu_has_bfloat16

    capability, bfloat16 = torch.backends.cpu.get_cpu_capability(), "" if cpu_has_bfloat16() else "no "
    within, between = torch.get_num_threads(), torch.get_num_interop_threads()
    cuda, rocm, driver = torch.version.cuda, torch.version.hip, _driver()
    section.facts |= {
        "CPU": f"{capability}, {bfloat16}bfloat16 instructions",
        "threads": f"{within} within an operation, {between} between operations",
        "torch is for": f"CUDA {cuda}" if cuda else f"ROCm {rocm}" if rocm else "CPU only",
        "NVIDIA driver": driver or "none",
    }
    if torch.cuda.is_available():
        _gpus(section)
    else:
        section.warnings.append(_why_no_gpu(bool(cuda or rocm), driver))
    _computes(section, name)
    return section


def _imports(section: Section) -> bool:
    """Whether the libraries can be imported; an error for each that cannot, as when their builds do not match."""
    for library in ("torch", *IMPORTED):
        try:
            __import__(library)
        except Exception as error:  # whatever a broken installation raises
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            section.errors.append(
                f"{library} cannot be imported ({reason}): install torch, torchvision and it again, together, from one "
                f"index: {GET_TORCH}"
            )
    return not section.errors


def _driver() -> str:
    """Version and GPUs of NVIDIA's driver, as it reports them itself; "" if there is none."""
    command = shutil.which("nvidia-smi")
    if not command:
        return ""
    query = [command, "--query-gpu=driver_version,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not respond ({type(error).__name__})"
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return f"nvidia-smi fails: {(done.stdout + done.stderr).strip().splitlines()[:1]}"
    version = lines[0].partition(",")[0]
    return f"{version}, for {len(lines)} GPU{'s' * (len(lines) > 1)}"


def _gpus(section: Section) -> None:
    import torch

    kernels = torch.cuda.get_arch_list()
    for i in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(i)
        free, total = torch.cuda.mem_get_info(i)
        bfloat16 = "bfloat16" if facts.major >= 8 or torch.version.hip else "no bfloat16 instructions"
        section.facts[f"cuda:{i}"] = (
            f"{facts.name}, {size(free)} free of {size(total)}, sm_{facts.major}{facts.minor}, {bfloat16}"
        )
        if torch.version.cuda and not has_kernels(kernels, facts.major, facts.minor):
            section.warnings.append(
                f"torch {torch.__version__} has no kernels for cuda:{i} (sm_{facts.major}{facts.minor}, it has "
                f"{', '.join(kernels)}): install another build from {GET_TORCH}, or run on another DEVICE"
            )
        if free < total / 10:
            section.warnings.append(
                f"cuda:{i} has only {size(free)} free: nvidia-smi shows which programs use the rest"
            )


def has_kernels(kernels: list[str], major: int, minor: int) -> bool:
    """Whether a build with these architectures ("sm_80", "compute_90") runs on a GPU of this compute capability."""
    for name in kernels:
        kind, _, digits = name.partition("_")
        number = int("".join(filter(str.isdigit, digits)))  # "90a"
        ours, theirs = (major, minor), divmod(number, 10)
        if theirs <= ours and (kind == "compute" or theirs[0] == major):  # PTX is compiled for any later GPU
            return True
    return False


def _why_no_gpu(for_gpus: bool, driver: str) -> str:
    if not driver:
        return "no GPU: the demo's ViT trains on a CPU in minutes; a ViT-B/16 takes far longer"
    if not for_gpus:
        return f"there is a GPU, but this torch is a build for CPUs only: install one with CUDA from {GET_TORCH}"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1", "NoDevFiles"):
        return "CUDA_VISIBLE_DEVICES hides all GPUs from torch: unset it to use them"
    return (
        f"the driver has a GPU that torch does not see ({_cuda_problem()}): update the driver, or install a torch for "
        f"an older CUDA from {GET_TORCH}"
    )


def _cuda_problem() -> str:
    import torch

    try:
        torch.cuda.init()
    except RuntimeError as error:
        return str(error).partition(". ")[0].splitlines()[0]
    return "no reason given"


def _computes(section: Section, name: str) -> None:
    """A matrix product on the device of a run, so that a broken installation shows here."""
    import torch

    from ...engine.device import choose_device

    try:
        device = choose_device(name)
        matrix = torch.ones(64, 64, device=device)
        right = (matrix @ matrix).sum().item() == 64**3
    except (ValueError, RuntimeError) as error:
        section.errors.append(f"DEVICE {name}: {str(error).splitlines()[0]}")
        return
    section.facts["runs use"] = f"{device} (DEVICE {name})"
    if not right:
        section.errors.append(f"{device} multiplies matrices wrongly: the hardware or its driver is broken")
