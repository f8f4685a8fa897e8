"""What every method of Hugging Face peft is: modules that peft makes, in the place of the backbone's own."""

import copy
import logging
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode
from safetensors.torch import save
from torch import Tensor

from ...utils.io import replace_folder
from ..method import Method
from .catalogue import tuners
from .shell import Part, all_leaves, inject, require_adapted, taps_of, target_leaves

logger = logging.getLogger(__name__)

PREFIX = "base_model.model."  # of every name in a peft file that belongs to a module


class Injected(Method):
    """Modules that peft makes, in the place of the targets. A subclass defines which tuner in ``request``."""

    attaches_without_files = False
    folds = True
    for_any_backbone = True

    def request(self, cfg: CfgNode) -> tuple[str, dict[str, Any], list[str]]:
        """The tuner, the arguments of its config, and the targets, which an argument target_modules replaces."""
        raise NotImplementedError

    def attach(self, cfg, vit, tokens):
        kind, arguments, targets = self.request(cfg)
        leaves, ends = (all_leaves(vit), []) if "target_modules" in arguments else target_leaves(vit, targets)
        config = tuners()[kind](**{"target_modules": ends, **arguments})
        model = inject(kind, config, leaves)
        shell = model.base_model.model
        self.model = (model,)  # in a tuple: the taps own what it learns
        self.replaced = [name for name, leaf in leaves.items() if shell.get_submodule(name) is not leaf]
        targeted = {name for name in leaves if model.base_model._check_target_module_exists(config, name)}
        require_adapted(kind, shell, {name: leaf for name, leaf in leaves.items() if name in targeted})
        self.has_parts = any(isinstance(leaves[name], Part) for name in self.replaced)
        for site, tap in taps_of(shell, leaves, self.replaced).items():
            self.instead(site, tap)
        for name in leaves.keys() - set(self.replaced):  # peft would take their biases for its own
            parent, _, last = name.rpartition(".")
            del shell.get_submodule(parent)._modules[last]
        self.bias = getattr(config, "bias", "none")
        self.own_biases = {f"{site}.bias" for site, _, _ in self.wires}
        if {param for param in model.parameters() if param.requires_grad} - set(self.parameters()):
            raise ValueError(f"peft's {kind} learns more than the modules it replaces hold: not supported")
        self.other_names = other_names(self._learned(), kind)
        self._require_savable(kind)

    def trains(self, name, param):
        if self.bias.endswith("_only"):  # "lora_only", "boft_only": of the replaced modules
            return name in self.own_biases
        return self.bias == "all" and name.endswith("bias")

    def state_dict(self, *, destination=None, prefix="", keep_vars=False):
        """What peft would save, under its names, every tensor once."""
        destination = {} if destination is None else destination
        once = {name: tensor for name, tensor in self._learned().items() if name not in self.other_names}
        destination.update({f"{prefix}{name}": tensor for name, tensor in once.items()})
        return destination

    def _learned(self) -> dict[str, Tensor]:
        """What peft would save, a tensor that several modules share under all of its names."""
        from peft import get_peft_model_state_dict

        with warnings.catch_warnings(action="ignore"):
            state = get_peft_model_state_dict(self.model[0], save_embedding_layers=False)
        return {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}

    def _learn(self, state: dict[str, Tensor]) -> set[str]:
        """Take over what ``_learned`` gave; the names, in peft's model, of tensors that were not in it."""
        from peft import set_peft_model_state_dict

        with warnings.catch_warnings(action="ignore"):
            state = {_in_file(name): tensor for name, tensor in state.items()}
            return set(set_peft_model_state_dict(self.model[0], state).missing_keys)

    def _require_savable(self, kind: str) -> None:
        """Check, before training, that all that will be learned is saved.

        Raises:
            ValueError: a trained parameter is not saved.
        """
        missing, names = self._learn(self._learned()), defaultdict(set)
        for name, param in self.model[0].named_parameters(remove_duplicate=False):  # shared ones have several names
            names[param].add(name)
        if lost := [min(names[param]) for param in names if param.requires_grad and names[param] <= missing]:
            raise ValueError(f"peft's {kind} does not save all that it learns, such as {lost[0]}: it is not supported")

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        given = {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}
        own = self._learned()
        given |= {name: given[first] for name, first in self.other_names.items() if first in given}
        missing += [f"{prefix}{name}" for name in own.keys() - given.keys()]
        unexpected += [f"{prefix}{name}" for name in given.keys() - own.keys()]
        self._learn({name: given[name] for name in own if name in given})
        # torch loads the taps next, under their names as modules; they hold the right values already.
        state_dict.update({f"{prefix}{name}": tensor for name, tensor in super().state_dict().items()})

    def export(self, vit, folder):
        if self.has_parts:
            logger.info("no %s: peft's format cannot name the q, k and v of a fused attn.qkv", folder)
            return
        (model,) = self.model
        config = copy.deepcopy(model.peft_config["default"])
        config.inference_mode = True
        matched = {name for name in all_leaves(vit) if model.base_model._check_target_module_exists(config, name)}
        if matched != set(self.replaced):  # an attention pool has an mlp.fc1 too
            config.target_modules = self.replaced
        state = {_in_file(name): tensor for name, tensor in self._learned().items()}
        for name, param in vit.named_parameters():
            if self.trains(name, param):
                module = name.removesuffix(".bias")
                state[_in_file(f"{module}.base_layer.bias" if module in self.replaced else name)] = param
        state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}

        def write(temporary: Path) -> None:
            config.save_pretrained(temporary)
            (temporary / "adapter_model.safetensors").write_bytes(save(state, {"format": "pt"}))

        replace_folder(folder, write)
        logger.info("%s/: what peft learned in its own format, without head and other methods", folder.name)


def other_names(state: dict[str, Tensor], kind: str) -> dict[str, str]:
    """Tensors in ``state`` that have several names: each further name with the first one.

    Raises:
        ValueError: one tensor is a part of another, which no file format can express.
    """
    first, others, owner = {}, {}, {}
    for name, tensor in state.items():
        memory = tensor.untyped_storage().data_ptr()
        place = (memory, tensor.storage_offset(), tensor.shape, tensor.stride())
        if not tensor.numel():
            continue  # it has no memory
        if place in first:
            others[name] = first[place]
        elif memory in owner:
            raise ValueError(f"peft's {kind} cannot be saved: {name} and {owner[memory]} are parts of one tensor")
        first.setdefault(place, name)
        owner.setdefault(memory, name)
    return others


def _in_file(name: str) -> str:
    """The name in a peft file: what belongs to all modules, such as VeRA's matrices, has it already."""
    return name if name.startswith("base_model.") else PREFIX + name
