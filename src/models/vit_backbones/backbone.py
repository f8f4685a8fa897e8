"""What is known of a backbone: its architecture in timm, where its weights are, and the pixels they were trained on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

MeanStd = tuple[tuple[float, ...], tuple[float, ...]]

IMAGENET: MeanStd = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: MeanStd = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
OPENAI: MeanStd = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Backbone:
    """One row of the zoo, or a checkpoint of Hugging Face transformers."""

    arch: str  # timm's name
    files: tuple[str, ...]  # accepted names under MODEL.MODEL_ROOT; the first is the publisher's
    convert: Callable[[Path], dict[str, Tensor]]
    url: str
    licence: str  # of the weights, by its name on the Hugging Face Hub, as their publisher or timm states it
    mean_std: MeanStd = IMAGENET  # of the images it was pre-trained on
    interpolation: str = "bicubic"  # of those images, as timm states it for these weights
    pool: str = "token"
    resize: str = "bilinear"  # of position embeddings, unless MODEL.POS_EMBED_RESIZE sets it
    dropout: float = 0.0  # VPT's rates; they act in end2end only
    drop_path: float = 0.0
    arguments: dict = field(default_factory=dict)  # of the architecture, where they are not its own, in JSON's types
    has_text: bool = False  # whether the file holds CLIP's text tower too
    norm_of_all: bool = False  # whether a final norm that follows the average here was pre-trained on every token
    epsilon: float = 0.0  # of its layer norms, where it is not the architecture's own
    grid: tuple[int, int] | None = None  # of its position embeddings, where a file beside them says it
