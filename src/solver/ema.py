"""An exponential moving average of what is learned: timm's ModelEmaV2, as SSF has it, with the frozen ViT left out."""

import torch

from ..models.vit_models import TunedViT


class Average:
    """average = decay * average + (1 - decay) * present, after every step, from the start of training on.

    Of all that tuned.safetensors holds: methods, head (its batch norms' statistics too) and unfrozen weights. The model
    trains on as if there were none.

    Attributes:
        values: name -> the average, or after ``swap`` what it was exchanged with.
    """

    def __init__(self, model: TunedViT, decay: float):
        self.decay = decay
        self.present = {name: tensor.detach() for name, tensor in model.tuned_state_dict().items()}
        self.values = {name: tensor.clone() for name, tensor in self.present.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in what the model has learned by now; whole numbers (a batch norm's count) are taken as they are."""
        floats = [name for name, value in self.values.items() if value.is_floating_point()]
        own, present = ([tensors[name] for name in floats] for tensors in (self.values, self.present))
        torch._foreach_lerp_(own, present, 1.0 - self.decay)
        for name in self.values.keys() - set(floats):
            self.values[name].copy_(self.present[name])

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's values and the average; done twice, everything is as before, to the bit."""
        for name, value in self.values.items():
            here = self.present[name].clone()
            self.present[name].copy_(value)
            value.copy_(here)

    @torch.no_grad()
    def load(self, values: dict[str, torch.Tensor]) -> None:
        """Go on from ``values``, as they were saved."""
        for name, value in values.items():
            self.values[name].copy_(value)
