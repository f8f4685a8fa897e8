"""What follows from a config, each fact in one place. Without torch."""

from fvcore.common.config import CfgNode

from ..data.presets import NATIVE, PROTOCOLS, RANDOM, WHOLE_BATCH, explicit_parts, varies
from ..data.tasks import find_task
from .catalogue import BackboneFacts, catalogue
from .methods import read_methods


def image_size(cfg: CfgNode) -> tuple[int, int]:
    """Height and width of the images that the network sees."""
    return tuple(cfg.DATA.IMAGE_SIZE) or (cfg.DATA.CROPSIZE, cfg.DATA.CROPSIZE)


def evaluation_batch(cfg: CfgNode, device: str) -> int:
    """Images per evaluation step on a kind of device."""
    data = cfg.DATA
    # Without gradients larger batches fit: only one block's activations are kept.
    larger = max(data.BATCH_SIZE, min(4 * data.BATCH_SIZE, 256)) if device == "cuda" else data.BATCH_SIZE
    return data.EVAL_BATCH_SIZE or larger


def is_native(cfg: CfgNode) -> bool:
    """Whether the network sees every image in its own aspect ratio."""
    return cfg.DATA.RESIZE == NATIVE


def methods_label(transfer_type: str, freqfit: str, plus: str = "+") -> str:
    """MODEL.TRANSFER_TYPE and FREQFIT in one name: "lora+freqfit"."""
    return plus.join(filter(None, (transfer_type, freqfit)))


def train_split(cfg: CfgNode) -> str:
    """What trains: "train", or "trainval" without validation.

    Raises:
        ValueError: the task is unknown.
    """
    return cfg.DATA.TRAIN_SPLIT or find_task(cfg.DATA.NAME).train_split


def images_vary(cfg: CfgNode) -> bool:
    """Whether a training image looks different in every epoch; False where the task is unknown."""
    return varies(_augmentation(cfg))


def augments_batches(cfg: CfgNode) -> list[str]:
    """Augmentation that acts on batches of images of one shape: "mixup"; none where the task is unknown."""
    return [name for name in WHOLE_BATCH if _augmentation(cfg).get(name)]


def _augmentation(cfg: CfgNode) -> dict:
    try:
        parts = dict(PROTOCOLS[find_task(cfg.DATA.NAME).protocol])
    except ValueError:
        return {"augment": "none"}
    return parts | explicit_parts(cfg.DATA, ("augment", *RANDOM))


def backbone(name: str) -> BackboneFacts | None:
    """The row of the zoo that DATA.FEATURE names; None for timm:<name>, and for names that are not known."""
    rows = catalogue()
    return rows.backbones.get(rows.aliases.get(name, name))


def trains_everything(cfg: CfgNode) -> bool:
    """Whether every weight of the ViT trains."""
    return "end2end" in read_methods(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)[0]
