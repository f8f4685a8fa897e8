"""What every PEFT method is: small maps ("taps") at named modules of one timm ViT.

A *site* is the name timm gives a module: ``blocks.3.attn.qkv``, ``blocks.3``, ``norm``. Those names are also the
checkpoint keys, so they outlive timm releases. A *tap* is an ordinary ``nn.Module`` from tokens to tokens. A method
puts taps at sites with three verbs, and a site with taps then computes

    y = after(op(before(x)) + beside(before(x)))

A fourth verb, ``instead``, puts a tap in the place of op itself, for maps that no sum expresses (a method of Hugging
Face peft); a site takes one.

Taps belong to their method, never to the ViT: ``vit.state_dict()`` keeps exactly timm's keys, and
``method.state_dict()`` is exactly what the method learned. Because hooks do this, modules must be called, never their
``.forward``, and taps are connected once, before ``torch.compile``.

A tap whose class has ``reads_only = True`` returns the very x that it gets ("before") or y ("after"): with such taps
alone, tokens are the frozen ViT's. One with ``changes_tokens = True`` puts tokens in, takes some out or pools them:
its effect cannot be halved. One with ``takes_context = True`` ("after") is called with all that the module gets beside
its input: rotary positions, masks.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..utils.text import a_kind
from .called import called
from .families.base import DoesNotFit
from .families.stages import Tokens

THIS_FILE = "<this file>"


def listed(names: Iterable[Any]) -> str:
    """Names, or the last parts of modules' names, in words: ["attn.q", "mlp.fc1"] -> "q and fc1"."""
    *others, last = [str(name).rpartition(".")[2] for name in names] or ["nothing"]
    return f"{', '.join(others)} and {last}" if others else last


class Method(nn.Module):
    """One PEFT method on one ViT. A subclass defines what it adds in ``attach`` and what it unfreezes in ``trains``.

    Args:
        cfg: this method's own keys, the node ``MODEL.<NAME>``.
        tokens: None where the backbone has no single sequence of tokens; only for methods ``for_any_backbone``.

    Raises:
        DoesNotFit: ``vit`` does not have what the method needs, or nothing that it would train.
    """

    # For the table of methods: its paper, what it trains ({RANK} stands for a key's value, see ``words``), and whether
    # the result folds into a plain timm model.
    paper = ""
    learns = ""
    folds = False
    # Whether the folded network has more blocks than the ViT: beside end2end, which can learn the rest, it adds these.
    adds_blocks = False
    # Whether it also works on networks without one sequence of tokens (Swin, ConvNeXt): it asks for modules by role,
    # never for tokens or a grid.
    for_any_backbone = False
    # Why it needs images of one shape, with the same grid of patches and none that only fill up a batch: it moves
    # something between patches, or averages them. "" where it treats every token by itself.
    one_grid = ""
    # Whether training starts at the pre-trained model, with the default keys. Some papers start at random values.
    starts_pretrained = True
    # What else to do where a network has none of its parts, as the end of a sentence.
    other_parts = ""
    # Keys to use where the model is only counted, in place of files.
    without_files_to_count: dict[str, Any] = {}  # noqa: RUF012
    # Whether it can be attached to a network that is only looked at, without files and without libraries that are slow.
    attaches_without_files = True
    # The learning rate that suits it with AdamW, for SOLVER.BASE_LR -1: 0.001 unless pictures showed another.
    adamw_lr = 0.001
    # Whether the ViT's own dropout and drop-path act during training. VPT keeps a frozen encoder in eval mode.
    vit_in_train_mode = False

    def __init__(self, cfg: CfgNode, vit: nn.Module, tokens: Tokens | None):
        super().__init__()
        self.taps = nn.ModuleList()
        self.wires: list[tuple[str, str, int]] = []  # (site, verb, index into taps); one tap may serve several sites
        # Keys to use when this method is built again to load its saved state: instead of a file to start from none, or
        # THIS_FILE, the saved state itself.
        self.without_files: dict[str, Any] = {}
        self.attach(cfg, vit, tokens)
        if not self.wires and not any(self.trains(name, param) for name, param in vit.named_parameters()):
            raise DoesNotFit("there is nothing that it would train")

    @staticmethod
    def defaults() -> CfgNode:
        """This method's config keys: for each a comment that says what it does, and its default."""
        return CfgNode()

    @classmethod
    def described(cls, cfg: CfgNode) -> str:
        """What it trains with these keys, in a few words."""
        return cls.learns.format_map(cls.words(cfg))

    @classmethod
    def words(cls, cfg: CfgNode) -> dict[str, Any]:
        """What ``learns`` may name: the keys, lists in words; a subclass adds what takes more than one key."""
        return {key: listed(value) if isinstance(value, list) else value for key, value in cfg.items()}

    @classmethod
    def require_parts(cls, cfg: CfgNode, vit: nn.Module, tokens: Tokens | None) -> None:
        """Find out on a network without numbers (on the meta device) whether this method can be attached.

        Raises:
            ValueError: it cannot.
        """
        cls(cfg, vit, tokens)

    @classmethod
    def count(cls, cfg: CfgNode, vit: nn.Module, tokens: Tokens | None) -> int:
        """How many parameters it would train, on a network without numbers (on the meta device).

        Raises:
            ValueError: it cannot be attached.
        """
        method = cls(cfg, vit, tokens)
        require_sites(vit, nn.ModuleDict({"it": method}))
        own = sum(param.numel() for param in method.parameters() if param.requires_grad)
        return own + sum(param.numel() for name, param in vit.named_parameters() if method.trains(name, param))

    @staticmethod
    def problems(cfg: CfgNode) -> list[str]:
        """What is wrong with the values of this method's keys, one sentence each; names without ``MODEL.<NAME>.``."""
        return []

    def attach(self, cfg: CfgNode, vit: nn.Module, tokens: Tokens | None) -> None:
        """Put taps at sites. Called once, before the first forward."""

    def trains(self, name: str, param: nn.Parameter) -> bool:
        """Whether this method also trains the ViT's own parameter ``name``."""
        return False

    def idle(self, vit: nn.Module) -> set[str]:
        """Names of its own trained parameters ("taps.0.scale") that change nothing that the head sees, so that they get
        no gradient. With the default keys."""
        return set()

    @staticmethod
    def drop_path(cfg: CfgNode) -> float:
        """The drop-path that this method wants in the ViT's blocks, unless SOLVER.DROP_PATH sets one."""
        return 0.0

    def decays(self, name: str, param: nn.Parameter) -> bool | None:
        """Whether weight decay acts in the original code, with AdamW, on what this method trains: its own parameter
        ``name`` ("taps.0.scale") or one of the ViT's. None: SOLVER.DECAY decides, as for any other."""
        return None

    def num_features(self, dim: int) -> int:
        """Width of what the head sees when the ViT's pooled features have ``dim`` channels."""
        return dim

    @classmethod
    def budget(cls, cfg: CfgNode) -> float:
        """About how many parameters it trains, where the data decide it; 0: as many as it has when it is attached."""
        return 0.0

    def features(self, pooled: Tensor) -> Tensor:
        """What the head sees: (B, dim) -> (B, num_features(dim))."""
        return pooled

    def export(self, vit: nn.Module, folder: Path) -> None:
        """Write what was learned into ``folder`` in another library's format, for methods that have one."""

    def before(self, site: str, tap: nn.Module) -> None:
        """The site gets ``tap(x)`` instead of x."""
        self._add(site, "before", tap)

    def beside(self, site: str, tap: nn.Module) -> None:
        """``tap(x)`` is added to what the site makes of x."""
        self._add(site, "beside", tap)

    def after(self, site: str, tap: nn.Module) -> None:
        """``tap(y)`` replaces y, what the site returns."""
        self._add(site, "after", tap)

    def instead(self, site: str, tap: nn.Module) -> None:
        """``tap(x)`` is computed in place of what the site makes of x."""
        self._add(site, "instead", tap)

    def _add(self, site, verb, tap):
        index = next((i for i, other in enumerate(self.taps) if other is tap), len(self.taps))
        if index == len(self.taps):
            self.taps.append(tap)
        self.wires.append((site, verb, index))


class Site:
    """The taps at one module, run by its forward hooks. The first method is outermost: first in, last out.

    What an outer method has beside the site is therefore added to what the inner methods make of y: LoRA around SSF is
    scale * op(x) + shift + lora(x). All that is beside a site reads what finally enters it.
    """

    def __init__(self):
        self.before: list[nn.Module] = []
        self.layers: list[tuple[str, list[nn.Module], list[nn.Module]]] = []  # (method, beside, after), inside out
        self.op: Callable | None = None  # the module's own, where a tap stands in its place
        self.strength = 1.0  # how much of what taps do is done; less than all of it in weight-space ensembles
        self.idle = False  # whether the taps do nothing, whatever their strength
        self.ready: list[Tensor] | None = None  # what the taps beside made, until the module has made its own
        self.hooks: list[RemovableHandle] = []

    def put_around(self, module: nn.Module) -> None:
        """Run the taps in hooks: other hooks see what enters the module and leaves it with them."""
        self.hooks = [
            module.register_forward_pre_hook(self.enter),
            module.register_forward_hook(self.leave, with_kwargs=True),
        ]

    def take_off(self) -> None:
        """Take the hooks away: from now on ``run`` is called."""
        for hook in self.hooks:
            hook.remove()

    def run(self, op: Callable, *args, **kwargs) -> Tensor:
        """What calling the module gives with the hooks."""
        args = self._before(args)
        beside = self._beside(args)
        return self._after(args, kwargs, op(*args, **kwargs), beside)

    def add(self, verb: str, tap: nn.Module, method: str = "") -> None:
        if verb == "before":
            self.before.append(tap)
            return
        if not self.layers or self.layers[0][0] != method:
            self.layers.insert(0, (method, [], []))
        _, beside, after = self.layers[0]
        (beside if verb == "beside" else after).insert(0, tap)

    @property
    def taps(self) -> list[nn.Module]:
        """All but one in the module's own place."""
        return [*self.before, *(tap for _, *verbs in self.layers for taps in verbs for tap in taps)]

    @property
    def changes_tokens(self) -> bool:
        """Whether a tap here changes the number of tokens."""
        return any(getattr(tap, "changes_tokens", False) for tap in self.taps)

    def enter(self, module, args):
        args = self._before(args)
        if any(beside for _, beside, _ in self.layers):
            self.ready = self._beside(args)
        return args

    def leave(self, module, args, kwargs, y):
        beside, self.ready = self.ready, None
        return self._after(args, kwargs, y, beside)

    def _before(self, args: tuple) -> tuple:
        x, *rest = args
        for tap in () if self.idle else self.before:
            x = self._towards(x, tap(x))
        return (x, *rest)

    def _beside(self, args: tuple) -> list[Tensor]:
        """Computed before ``op``: what comes after the last map of a block and needs its input in the backward pass
        would have recompute.py compute that map again."""
        return [] if self.idle else [tap(args[0]) for _, taps, _ in self.layers for tap in taps]

    def _after(self, args: tuple, kwargs: dict, y: Tensor, ready: list[Tensor] | None) -> Tensor:
        if self.op is not None and (self.idle or self.strength != 1):
            y = self._towards(self.op(*args, **kwargs), y)
        added = iter(ready or ())
        for _, beside, after in () if self.idle else self.layers:
            for _ in beside:
                y = y + (next(added) if self.strength == 1 else self.strength * next(added))
            for tap in after:
                context = kwargs if getattr(tap, "takes_context", False) else {}
                y = self._towards(y, tap(y, **context))
        return y

    def _towards(self, x: Tensor, y: Tensor) -> Tensor:
        """y, or what lies ``strength`` of the way from x to it; x while the taps do nothing."""
        if self.idle:
            return x
        return y if self.strength == 1 else x.lerp(y, self.strength)


def connect(vit: nn.Module, methods: nn.ModuleDict) -> dict[str, Site]:
    """Run every method's taps in ``vit``'s forward. Call once, before ``torch.compile``.

    Raises:
        ValueError: a method names a site that the ViT does not have or never calls, or two replace the same.
    """
    require_sites(vit, methods)
    modules, sites, replaced = dict(vit.named_modules()), {}, {}
    for name, site, verb, tap in wires(methods):
        if site not in sites:
            sites[site] = Site()
            sites[site].put_around(modules[site])
        if verb == "instead":
            if site in replaced:
                raise ValueError(
                    f"methods {replaced[site]!r} and {name!r} both replace what {site} computes: name one of them, or "
                    "give them other targets"
                )
            replaced[site], sites[site].op = name, modules[site].forward
            modules[site].forward = tap.__call__  # a bound method: copied with the model; the tap stays the method's
        else:
            sites[site].add(verb, tap, name)
    return sites


def require_sites(vit: nn.Module, methods: nn.ModuleDict) -> None:
    """Raises ValueError unless ``vit`` has, and calls, every module at which the methods have taps."""
    modules = dict(vit.named_modules())
    running = called(vit) if any(True for _ in wires(methods)) else {}
    for name, site, verb, _ in wires(methods):
        if site not in modules:
            raise ValueError(f"method {name!r}: {type(vit).__name__} has no module {site!r}")
        if site not in running:
            raise ValueError(
                f"method {name!r} would do nothing at {site}: this {type(vit).__name__} never calls that "
                f"{type(modules[site]).__name__}, but reads its weights itself or leaves it out; choose another method "
                "or other targets"
            )
        if verb != "before" and running[site].output is None:
            raise ValueError(
                f"method {name!r} does not work at {site}: {a_kind(modules[site])} returns more than one "
                "tensor; choose another method or other sites"
            )


def wires(methods: nn.ModuleDict) -> Iterable[tuple[str, str, str, nn.Module]]:
    """Every (method, site, verb, tap), in method order."""
    for name, method in methods.items():
        for site, verb, index in method.wires:
            yield name, site, verb, method.taps[index]


def wiring(vit: nn.Module, methods: nn.ModuleDict) -> str:
    """What runs where and what trains: one line per tap, then one per trained parameter of the ViT itself."""
    taps = [f"{s:24} {v:7} {n:14} {type(t).__name__:18} {num_params(t):>10,}" for n, s, v, t in wires(methods)]
    own = [f"{n:24} {'trains':7} {'':33} {p.numel():>10,}" for n, p in vit.named_parameters() if p.requires_grad]
    return "\n".join(taps + own) or "nothing is attached: only the head trains"


def num_params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
