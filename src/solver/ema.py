"""An exponential moving average of the learned weights: timm's ModelEmaV2, as SSF uses it, without the frozen ViT."""

import torch

from ..models.vit_models import TunedViT


class Average:
    """average = decay * average + (1 - decay) * current, after every step, from the start of training.

    It covers everything in tuned.safetensors: methods, head (with its batch norms' statistics) and unfrozen weights.
    Training itself is not affected.

    Attributes:
        values: name -> the average, or, after ``swap``, the model's values.
    """

    def __init__(self, model: TunedViT, decay: float):
        self.decay = decay
        self.current = {name: tensor.detach() for name, tensor in model.tuned_state_dict().items()}
        self.values = {name: tensor.clone() for name, tensor in self.current.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the current weights; integers (a batch norm's count) are copied."""
        floats = [name for name, value in self.values.items() if value.is_floating_point()]
        averages, current = ([tensors[name] for name in floats] for tensors in (self.values, self.current))
        torch._foreach_lerp_(averages, current, 1.0 - self.decay)
        for name in self.values.keys() - set(floats):
            self.values[name].copy_(self.current[name])

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's values and the average; doing it twice restores everything bit for bit."""
        for name, value in self.values.items():
            current = self.current[name].clone()
            self.current[name].copy_(value)
            value.copy_(current)

    @torch.no_grad()
    def load(self, values: dict[str, torch.Tensor]) -> None:
        """Restore saved ``values``."""
        for name, value in values.items():
            self.values[name].copy_(value)
