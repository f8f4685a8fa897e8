"""Every tuner of Hugging Face's peft that replaces linear maps, by its name (github.com/huggingface/peft, 0.21).

peft injects not into the ViT but into a *shell*: an empty tree with timm's names whose leaves share the ViT's
parameters and have none of its hooks. What it makes of a leaf then stands in the place of the ViT's own operation, so
that every other method composes with it. The shell may hold the thirds of a fused ``attn.qkv`` as linear maps of their
own, which is how FreqFiT uses BOFT, VeRA and FourierFT.

What the method learned, in memory and on disk, is what peft itself would save, under peft's names; a tensor that
several modules share (LILY's and RANDLORA's) is there once, under the first of its names. Tuners that draw something at
random and do not save it draw it again from a seed of their config.

FROD, SHiRA and WaveFT compute in ways that ``torch.compile`` cannot put into one graph; the others compile whole.

peft is imported inside functions: it brings transformers along, which takes seconds that no other method should cost.
"""

import copy
import difflib
import logging
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from safetensors.torch import save
from torch import Tensor, nn

from ...utils.io import read_json, replace_folder
from ...utils.memory import AllocatingAtMost
from ..method import HALVES, DoesNotFit, Method, block_sites
from ..vit_backbones.tensors import read_state, reading
from .adapter import dropout_problems

logger = logging.getLogger(__name__)

THIRDS = ("attn.q", "attn.k", "attn.v")
LINEAR = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
PREFIX = "base_model.model."  # of every name in a peft file that belongs to a module
ROOM = 16  # times the backbone's and the adapter's bytes: what making an adapter's modules may allocate
LEAST_ROOM = 2**26
MOST_TENSORS = 2**17
HEADS = ("head.", "classifier.", "fc.")  # timm's and transformers' names of what a pre-trained backbone ends with here

# Tuners that cannot work here, and why; those that learn prompts of a language model are recognised by their class.
REFUSED = {
    "ADALORA": "the training loop must call it after every step to move its ranks",
    "ADAPTION_PROMPT": "it adapts the attention of Llama-like language models",
    "POLY": "it wants the number of a task with every image",
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

    known = tuners()
    names = {kind.upper(): kind for kind in known} | {config.__name__.upper(): kind for kind, config in known.items()}
    if name.upper() not in names:
        near = difflib.get_close_matches(name.upper(), names, n=1, cutoff=0.6)
        usable = ", ".join(kind for kind in known if not _why_not(kind, known[kind], PromptLearningConfig))
        raise ValueError(f"{name!r} is no tuner of peft{_did_you_mean(near)}; known: {usable}")
    kind = names[name.upper()]
    if reason := _why_not(kind, known[kind], PromptLearningConfig):
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
    found = []
    for name, value in arguments.items():
        if value and name in REFUSED_ARGUMENTS:
            found.append(f"{name} does not work here: {REFUSED_ARGUMENTS[name]}")
        elif name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            found.append(f"{config.__name__} has no {name!r}{_did_you_mean(near)}")
        elif slow := [pattern for pattern in _patterns(name, value) if _may_hang(pattern)]:
            found.append(f"{name} {slow[0]!r} repeats what repeats or branches: matching it may take for ever")
        elif name.startswith("init_") and str(value).startswith(REFUSED_STARTS):
            found.append(f"{name} {value!r} does not work here: it changes the frozen weights or reads data to start")
    if not found:
        try:
            with quiet():
                config(**{"target_modules": LINEAR, **copy.deepcopy(arguments)})
        except Exception as error:  # peft's checks raise anything
            found.append(f"{config.__name__}: {error}")
    return found


def _patterns(name: str, value: Any) -> list[str]:
    """The regular expressions in an argument, as peft takes them."""
    if name in ("target_modules", "exclude_modules", "layers_pattern"):
        several = value if name == "layers_pattern" and isinstance(value, list) else ()
        return [value] if isinstance(value, str) else list(map(str, several))
    return list(map(str, value)) if name.endswith("_pattern") and isinstance(value, dict) else []


def _may_hang(pattern: str) -> bool:
    """Whether matching can take exponential time: something repeats that itself repeats or has alternatives.

    A pattern that is none is peft's to refuse.
    """
    try:
        left = [(re._parser.parse(pattern), False)]
    except (re.error, RecursionError, OverflowError):
        return len(pattern) > 1000
    while left:
        parsed, repeated = left.pop()
        for kind, said in parsed:
            repeats = kind in REPEATS and said[1] > 1
            if repeated and (repeats or kind is re._constants.BRANCH):
                return True
            inner = said if isinstance(said, (tuple, list)) else ()
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
    """peft's warnings become lines of the log, each once."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        yield
    for message in dict.fromkeys(" ".join(str(warning.message).split()) for warning in heard):
        logger.info("peft says: %s", message)


# --- the shell


class Third(nn.Linear):
    """The q, k or v part of a fused qkv map: (..., D) -> (..., D). Its weight is cut out anew at every use."""

    def __init__(self, qkv: nn.Linear, third: str):
        nn.Module.__init__(self)  # no weight of its own
        self.qkv = (qkv,)
        self.in_features, self.out_features = qkv.in_features, qkv.out_features // 3
        first = "qkv".index(third) * self.out_features
        self.rows = slice(first, first + self.out_features)

    @property
    def weight(self) -> Tensor:
        return self.qkv[0].weight[self.rows]

    @property
    def bias(self) -> Tensor | None:
        bias = self.qkv[0].bias
        return None if bias is None else bias[self.rows]


class Thirds(nn.Module):
    """What q, k and v give, joined: (..., D) -> (..., 3 D)."""

    def __init__(self, maps: list[nn.Module]):
        super().__init__()
        self.maps = nn.ModuleList(maps)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([linear(x) for linear in self.maps], dim=-1)


def twin(op: nn.Module) -> nn.Module:
    """A module that computes what ``op`` does, with op's very parameters and none of its hooks."""
    other = object.__new__(type(op))
    nn.Module.__init__(other)
    vars(other).update({name: value for name, value in vars(op).items() if name not in vars(other)})
    other._parameters.update({name: _with_values(param) for name, param in op._parameters.items()})
    other._buffers.update(op._buffers)
    return other


def _with_values(param: nn.Parameter | None) -> nn.Parameter | None:
    """Zeros for a parameter on the meta device: such a model is only counted, but peft computes while it injects."""
    if param is None or not param.is_meta:
        return param
    return nn.Parameter(torch.zeros(1, device="cpu").expand(param.shape))


def target_leaves(vit: nn.Module, targets: Iterable[str]) -> dict[str, nn.Module]:
    """What peft may replace in every block: twins of the named modules, and thirds of ``attn.qkv``, by name.

    Raises:
        DoesNotFit: a block has one of them not, or qkv is no linear map.
    """
    thirds = [target for target in targets if target in THIRDS]
    whole = [target for target in targets if target not in THIRDS]
    found = {}
    for site, op in block_sites(vit, ["attn.qkv"] * bool(thirds) + whole).items():
        if thirds and site.endswith("attn.qkv"):
            if not isinstance(op, nn.Linear):
                raise DoesNotFit(f"{site} is a {type(op).__name__}, not a linear map with thirds q, k and v")
            qkv = twin(op)
            found |= {f"{site.removesuffix('qkv')}{third}": Third(qkv, third) for third in "qkv"}
        else:
            found[site] = twin(op)
    return found


def _named(targets: Iterable[str], leaves: Iterable[str]) -> list[str]:
    """The targets as these leaves are called: the halves of one that is two modules."""
    names = tuple(f".{name}" for name in leaves)
    return [
        part
        for target in targets
        for part in (HALVES[target] if any(n.endswith(HALVES.get(target, ())) for n in names) else [target])
    ]


def all_leaves(vit: nn.Module) -> dict[str, nn.Module]:
    """Twins of all modules of the backbone that have weights and no parts."""
    return {
        name: twin(op)
        for name, op in vit.named_modules()
        if not any(True for _ in op.children()) and any(True for _ in op.parameters(recurse=False))
    }


def shell_of(leaves: dict[str, nn.Module]) -> nn.Module:
    """A tree of empty modules with these leaves."""
    shell = nn.Module()
    for name, leaf in leaves.items():
        *path, last = name.split(".")
        node = shell
        for part in path:
            if part not in node._modules:
                node.add_module(part, nn.Module())
            node = node._modules[part]
        node.add_module(last, leaf)
    return shell


# --- injection


def inject(kind: str, config: Any, leaves: dict[str, nn.Module]) -> nn.Module:
    """The PeftModel of a shell with these leaves; the modules it replaced do not own the ViT's weights.

    Raises:
        ValueError: peft refuses, or changes the frozen weights.
    """
    from peft import get_peft_model

    _use_no_extension(config)
    params = [param for leaf in leaves.values() for param in _shared(leaf)]
    for param in params:  # TunedViT decides anew what trains
        param.requires_grad = False
    before = [param.sum() for param in params]
    try:
        with quiet(), params[0].device:  # also of what is built on the meta device: see _with_values
            model = get_peft_model(shell_of(leaves), config)
    except Exception as error:  # peft's checks raise anything
        raise ValueError(f"peft's {kind} does not fit this backbone: {error}") from error
    if not all(torch.equal(param.sum(), was) for param, was in zip(params, before, strict=True)):
        raise ValueError(f"peft's {kind} changes the frozen weights with these arguments: not supported")
    for layer in list(model.modules()):
        if "base_layer" in layer._modules:  # found as before, but neither moved nor saved with the layer
            vars(layer)["base_layer"] = layer._modules.pop("base_layer")
    return model


def _shared(leaf: nn.Module) -> Iterable[nn.Parameter]:
    return (leaf.qkv[0] if isinstance(leaf, Third) else leaf).parameters()


def _use_no_extension(config: Any) -> None:
    """BOFT without peft's CUDA extension, on every machine.

    peft would try to compile it, and silently learn one butterfly factor where that fails: what one machine learned
    would not fit the model of another.
    """
    if config.peft_type != "BOFT":
        return
    from peft.tuners.boft import layer

    layer._FBD_CUDA = False  # None would mean: not tried yet
    if config.boft_n_butterfly_factor > 1:
        logger.warning("note: BOFT with 1 butterfly factor: for more, peft needs a CUDA extension, not used here")
        config.boft_n_butterfly_factor = 1


def _taps(shell: nn.Module, leaves: dict[str, nn.Module], replaced: list[str]) -> dict[str, nn.Module]:
    """What stands in the place of each site's operation."""
    taps = {}
    for name in replaced:
        if isinstance(leaves[name], Third):
            block = name[:-1]  # "blocks.0.attn."
            taps.setdefault(f"{block}qkv", Thirds([shell.get_submodule(block + third) for third in "qkv"]))
        else:
            taps[name] = shell.get_submodule(name)
    return taps


def _in_file(name: str) -> str:
    """The name in a peft file: what belongs to all modules, such as VeRA's matrices, has it already."""
    return name if name.startswith("base_model.") else PREFIX + name


def other_names(state: dict[str, Tensor], kind: str) -> dict[str, str]:
    """For every further name of a tensor in ``state`` the first one.

    Raises:
        ValueError: tensors of which one is a part of another, which no file can hold as what they are.
    """
    first, found, owner = {}, {}, {}
    for name, tensor in state.items():
        memory = tensor.untyped_storage().data_ptr()
        place = (memory, tensor.storage_offset(), tensor.shape, tensor.stride())
        if not tensor.numel():
            continue  # it has no memory
        if place in first:
            found[name] = first[place]
        elif memory in owner:
            raise ValueError(f"peft's {kind} cannot be saved: {name} and {owner[memory]} are parts of one tensor")
        first.setdefault(place, name)
        owner.setdefault(memory, name)
    return found


class Injected(Method):
    """What peft makes of the targets, in their place. A subclass says in ``request`` what it wants of peft."""

    folds = True
    for_any_backbone = True

    def request(self, cfg: CfgNode) -> tuple[str, dict[str, Any], list[str]]:
        """The tuner, the arguments of its config, and the targets, which an argument target_modules replaces."""
        raise NotImplementedError

    @classmethod
    def require_parts(cls, cfg, vit, tokens):
        """Whether there are the targets: to inject takes peft seconds, and may need an adapter's file."""
        if "TARGETS" in cfg and "target_modules" not in cfg.get("KWARGS", {}) and not cfg.get("LOAD", ""):
            target_leaves(vit, cfg.TARGETS)

    def attach(self, cfg, vit, tokens):
        kind, arguments, targets = self.request(cfg)
        leaves = all_leaves(vit) if "target_modules" in arguments else target_leaves(vit, targets)
        config = tuners()[kind](**{"target_modules": _named(targets, leaves), **arguments})
        model = inject(kind, config, leaves)
        shell = model.base_model.model
        self.model = (model,)  # in a tuple: the taps own what it learns
        self.replaced = [name for name, leaf in leaves.items() if shell.get_submodule(name) is not leaf]
        asked = [name for name in leaves if model.base_model._check_target_module_exists(config, name)]
        if left_out := [name for name in asked if name not in self.replaced]:
            raise DoesNotFit(f"peft's {kind} leaves {left_out[0]} as it is, a {type(leaves[left_out[0]]).__name__}")
        self.has_thirds = any(isinstance(leaves[name], Third) for name in self.replaced)
        for site, tap in _taps(shell, leaves, self.replaced).items():
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
        """Try, before anything is learned, whether what will be is all in what is saved.

        Raises:
            ValueError: something is not.
        """
        missing, names = self._learn(self._learned()), defaultdict(set)
        for name, param in self.model[0].named_parameters(remove_duplicate=False):  # shared ones have several names
            names[param].add(name)
        if lost := [min(names[param]) for param in names if param.requires_grad and names[param] <= missing]:
            raise ValueError(
                f"peft's {kind} does not save all that it learns, such as {lost[0]}: it cannot be used here"
            )

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        given = {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}
        own = self._learned()
        given |= {name: given[first] for name, first in self.other_names.items() if first in given}
        missing += [f"{prefix}{name}" for name in own.keys() - given.keys()]
        unexpected += [f"{prefix}{name}" for name in given.keys() - own.keys()]
        self._learn({name: given[name] for name in own if name in given})
        # torch asks the taps next, under the names they have as modules; they are as they should be.
        state_dict.update({f"{prefix}{name}": tensor for name, tensor in super().state_dict().items()})

    def export(self, vit, folder):
        if self.has_thirds:
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


# --- adapters on disk


def read_adapter(folder: Path) -> tuple[str, dict[str, Any]]:
    """The tuner and the arguments that adapter_config.json says, as far as they differ from the tuner's defaults.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of a tuner that does not work here, or of arguments that do not.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        inside = ", ".join(str(other.parent) for other in folder.glob("*/adapter_config.json"))
        raise FileNotFoundError(f"{path} is missing" + (f"; there is one in {inside}" if inside else ""))
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is broken: it holds {type(content).__name__}, no settings")
    kind = find_tuner(str(content.get("peft_type")))
    defaults = {
        field.name: field.default_factory() if field.default is MISSING else field.default
        for field in fields(tuners()[kind])
        if not (field.default is MISSING and field.default_factory is MISSING)
    }
    if unknown := sorted(content.keys() - defaults.keys()):
        logger.warning("note: %s has %s, which this version of peft does not know", path, ", ".join(unknown))
    arguments = {
        name: value
        for name, value in content.items()
        if name in defaults and name not in BOOKKEEPING and value != defaults[name]
    }
    if found := argument_problems(kind, arguments):
        raise ValueError(f"{path}: {'; '.join(found)}")
    return kind, arguments


def read_weights(folder: Path, modules: list[str]) -> dict[str, Tensor]:
    """What the adapter learned, by timm's names, whatever its file has before them.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: they cannot be read without running code, or hold NaN or infinity.
    """
    names = ("adapter_model.safetensors", "adapter_model.bin")
    if not (path := next((folder / name for name in names if (folder / name).is_file()), None)):
        raise FileNotFoundError(f"{folder / names[0]} is missing")
    with reading(path, "peft"):
        state = read_state(path)
    if broken := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{path} is broken: {broken[0]} holds NaN or infinity")
    for name in state:
        for module in modules:
            if (start := f".{name}".find(f".{module}.")) >= 0:
                return {other.removeprefix(name[:start]): tensor for other, tensor in state.items()}
    return state


class Peft(Injected):
    """LoRA and all its relatives, as peft has them."""

    paper = "Mangrulkar et al., 2022, github.com/huggingface/peft"
    learns = "what a tuner of Hugging Face peft learns"

    @staticmethod
    def defaults() -> CfgNode:
        cfg = CfgNode()
        # peft's name of the tuner, such as "LORA", "LOHA", "OFT" or "VBLORA"; "": what LOAD has, else LORA.
        cfg.TYPE = ""
        # Modules of every block that it replaces, by the end of their names; attn.q, attn.k and attn.v are the thirds
        # of attn.qkv. An argument target_modules in KWARGS takes their place and sees the whole backbone.
        cfg.TARGETS = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
        # Arguments of the tuner's config: {r: 8, use_dora: true}; on the command line also one by one, as KWARGS.r 8.
        cfg.KWARGS = CfgNode()
        # Start from an adapter that peft saved: the folder with its adapter_config.json, which says TYPE and KWARGS.
        cfg.LOAD = ""
        return cfg

    @staticmethod
    def problems(cfg):
        found = target_problems(cfg.TARGETS)
        if cfg.LOAD and cfg.KWARGS:
            found.append("KWARGS and LOAD: the adapter's own config says its arguments; leave KWARGS empty")
        if cfg.LOAD and not cfg.TYPE:
            return found
        try:
            kind = find_tuner(cfg.TYPE or "LORA")
        except ValueError as error:
            return [*found, f"TYPE: {error}"]
        return found + [f"KWARGS: {problem}" for problem in argument_problems(kind, plain(cfg.KWARGS))]

    def request(self, cfg):
        kind, arguments = find_tuner(cfg.TYPE or "LORA"), plain(cfg.KWARGS)
        if cfg.LOAD:
            kind, arguments = read_adapter(Path(cfg.LOAD))
            if cfg.TYPE and find_tuner(cfg.TYPE) != kind:
                raise ValueError(f"MODEL.PEFT.TYPE is {cfg.TYPE!r}, but MODEL.PEFT.LOAD {cfg.LOAD} is {kind}")
        self.without_files = {"LOAD": "", "TYPE": kind, "KWARGS": arguments} if cfg.LOAD else {}
        return kind, arguments, cfg.TARGETS

    def attach(self, cfg, vit, tokens):
        if not cfg.LOAD:
            return super().attach(cfg, vit, tokens)
        folder = Path(cfg.LOAD)
        size = sum(file.stat().st_size for file in folder.glob("adapter_model.*"))
        size += sum(param.nbytes for param in vit.parameters())
        with AllocatingAtMost(ROOM * size + LEAST_ROOM, MOST_TENSORS):  # what a stranger's adapter_config.json asks for
            super().attach(cfg, vit, tokens)
        self._start_from(folder, vit)

    @torch.no_grad()
    def _start_from(self, folder: Path, vit: nn.Module) -> None:
        """Learn what the adapter learned, biases of the ViT included; its head is left out.

        Raises:
            ValueError: weights are missing, too many or of other shapes.
        """
        given, own = read_weights(folder, self.replaced), self._learned()
        biases = {name: param for name, param in vit.named_parameters() if self.trains(name, param)}
        known = own | biases
        given = {name if name in own else name.replace(".base_layer.", "."): given[name] for name in given}
        extra = sorted(given.keys() - known.keys())
        heads = [name for name in extra if name.removeprefix(PREFIX).startswith(HEADS)]
        wrong = [f"{name} is missing" for name in sorted(own.keys() - given.keys())]
        wrong += [f"nothing here is called {name}" for name in extra if name not in heads]
        wrong += [
            f"{name} is {tuple(given[name].shape)}, not {tuple(known[name].shape)}"
            for name in sorted(known.keys() & given.keys())
            if given[name].shape != known[name].shape
        ]
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise ValueError(f"{folder} does not fit this backbone: {'; '.join(wrong[:5])}{more}")
        if heads:
            logger.warning("note: %s: left out %s: the head is a new one", folder, ", ".join(heads))
        self._learn({name: given[name] for name in own})
        for name in biases.keys() & given.keys():
            biases[name].copy_(given[name])


def plain(node: Any) -> Any:
    """Config nodes as dicts."""
    return {key: plain(value) for key, value in node.items()} if isinstance(node, dict) else node


def target_problems(targets: list[str]) -> list[str]:
    found = [] if targets else ["TARGETS is empty; choose from " + ", ".join((*THIRDS, *LINEAR))]
    if len(set(targets)) < len(targets):
        found.append(f"TARGETS names a target twice: {', '.join(targets)}")
    if "attn.qkv" in targets and set(targets) & set(THIRDS):
        found.append("TARGETS names attn.qkv and a part of it: choose one")
    return found


# --- with FreqFiT's keys and defaults


class BOFT(Injected):
    """W -> s W R: a rotation R of blocks of BLOCK_SIZE channels, and a scale s of the outputs.

    peft keeps a D x D permutation for every linear map of D inputs: 0.6 GB at ViT-B/16 with the default targets.
    """

    paper = "Liu et al., 2023, arXiv:2311.06243"
    learns = "a rotation of the inputs of linear maps"

    @staticmethod
    def defaults() -> CfgNode:
        cfg = CfgNode()
        # Channels of a block of the rotation.
        cfg.BLOCK_SIZE = 4
        # Factors of the rotation. peft computes one without its CUDA extension, and so does this method, always.
        cfg.N_FACTOR = 2
        # Share of the rotation's blocks that are left out, in training only.
        cfg.DROPOUT = 0.1
        # Linear maps of every block: attn.q, attn.k, attn.v or attn.qkv as one; attn.proj, mlp.fc1, mlp.fc2.
        cfg.TARGETS = ["attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2"]
        # Biases of the ViT that train too: "none", "boft_only" (of the targets) or "all".
        cfg.BIAS = "boft_only"
        return cfg

    @staticmethod
    def problems(cfg):
        found = [f"{key} is {cfg[key]}; it must be at least 1" for key in ("BLOCK_SIZE", "N_FACTOR") if cfg[key] < 1]
        return found + target_problems(cfg.TARGETS) + dropout_problems(cfg.DROPOUT) + bias_problems(cfg.BIAS, "boft")

    def request(self, cfg):
        arguments = {
            "boft_block_size": cfg.BLOCK_SIZE,
            "boft_n_butterfly_factor": cfg.N_FACTOR,
            "boft_dropout": cfg.DROPOUT,
            "bias": cfg.BIAS,
        }
        return "BOFT", arguments, cfg.TARGETS


class VeRA(Injected):
    """b * up(d * down(x)): up and down are random, frozen and common to all sites; b and d are learned."""

    paper = "Kopiczko et al., 2023, arXiv:2310.11454"
    learns = "the scales of a random low-rank update"

    @staticmethod
    def defaults() -> CfgNode:
        cfg = CfgNode()
        # Rank of the update.
        cfg.R = 256
        # Dropout on what the update reads, in training only.
        cfg.DROPOUT = 0.1
        # Linear maps of every block: attn.q, attn.k, attn.v or attn.qkv as one; attn.proj, mlp.fc1, mlp.fc2.
        cfg.TARGETS = ["attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2"]
        # Biases of the ViT that train too: "none", "vera_only" (of the targets) or "all".
        cfg.BIAS = "vera_only"
        return cfg

    @staticmethod
    def problems(cfg):
        found = [] if cfg.R >= 1 else [f"R is {cfg.R}; it must be at least 1"]
        return found + target_problems(cfg.TARGETS) + dropout_problems(cfg.DROPOUT) + bias_problems(cfg.BIAS, "vera")

    def request(self, cfg):
        return "VERA", {"r": cfg.R, "vera_dropout": cfg.DROPOUT, "bias": cfg.BIAS}, cfg.TARGETS


class FourierFT(Injected):
    """W + SCALE times the real part of an inverse 2-D Fourier transform of FREQ learned entries at random places.

    The entries start at random, as in the paper, so that training does not start at the pre-trained model.
    """

    paper = "Gao et al., 2024, arXiv:2405.03003"
    learns = "a sparse spectrum of the update of linear maps"

    @staticmethod
    def defaults() -> CfgNode:
        cfg = CfgNode()
        # Learned entries of each spectrum; no more than the matrix has.
        cfg.FREQ = 3000
        # The update is multiplied by this; it starts as large as SCALE * sqrt(FREQ) / (inputs * outputs).
        cfg.SCALE = 300.0
        # Linear maps of every block: attn.q, attn.k, attn.v or attn.qkv as one; attn.proj, mlp.fc1, mlp.fc2.
        cfg.TARGETS = ["attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2"]
        # Biases of the ViT that train too: "none", "fourier_only" (of the targets) or "all".
        cfg.BIAS = "fourier_only"
        return cfg

    @staticmethod
    def problems(cfg):
        found = [] if cfg.FREQ >= 1 else [f"FREQ is {cfg.FREQ}; it must be at least 1"]
        return found + target_problems(cfg.TARGETS) + bias_problems(cfg.BIAS, "fourier")

    def request(self, cfg):
        return "FOURIERFT", {"n_frequency": cfg.FREQ, "scaling": cfg.SCALE, "bias": cfg.BIAS}, cfg.TARGETS


def bias_problems(bias: str, tuner: str) -> list[str]:
    known = ("none", f"{tuner}_only", "all")
    return [] if bias in known else [f"BIAS is {bias!r}; known: {', '.join(known)}"]
