"""Search for the state dict in a file's content: inside wrappers, beside an optimizer, inside a pickled module.

Works on the trees of `unpickle`; plain dicts of arrays are such trees too.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from .torch_tensor import is_tensor
from .unpickle import Call, Long, Named, shown
from .weights import CheckpointError

# Keys under which training scripts store the weights, by precedence.
_WRAPPERS = (
    "state_dict", "model", "model_state_dict", "model_state", "net", "network", "module", "params", "weights",
    "generator", "student",
)  # fmt: skip
_AVERAGES = ("model_ema", "state_dict_ema", "ema_state_dict", "params_ema", "ema_model", "ema")
_TRAINING = {
    "optimizer", "optimizers", "optim", "optimizer_state", "optimizer_states", "optimizer_state_dict", "lr_scheduler",
    "lr_schedulers", "scheduler", "schedulers", "scheduler_state_dict", "param_schedulers", "scaler", "amp_scaler",
    "grad_scaler", "amp", "message_hub", "loops", "callbacks", "hooks", "rng_state", "criterion", "loss",
}  # fmt: skip
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
_COUNTERS = {"steps", "n_averaged"}  # update counts of an average, stored beside the weights without their prefix
_MAPPINGS = {f"collections.{name}" for name in ("OrderedDict", "defaultdict", "Counter")} | {"builtins.dict"}
_MAX_LOOKS = 400_000  # entries of mappings; a file with optimizer and moving average needs some 20,000
_MAX_NAMES = 50_000
_MAX_NAME = 500  # characters; also bounds the nesting of modules
_MAX_VALUE = 200  # characters of a metadata value
_SETTINGS = ("args", "meta", "hyper_parameters", "config")


def unwrap(tree: Any, source: str = "the file") -> tuple[dict[str, Any], list[str]]:
    """Return the tensors of a tree by name, and notes on what was unwrapped or omitted, one sentence each.

    Weights under a key such as `state_dict` or `model` take precedence over their moving average, which is read only
    if there is nothing else. Nested mappings and pickled modules are flattened with dots. Prefixes such as `module.`
    are removed if every name has them. Raises CheckpointError where there is no tensor, naming the file by `source`.
    """
    found, notes = find_tensors(tree, source)
    stripped, more = strip_prefixes(found)
    return stripped, notes + more


def find_tensors(tree: Any, source: str) -> tuple[dict[str, Any], list[str]]:
    """Return the result of `unwrap` without removing prefixes: names are those of the file."""
    search = _Search(source)
    node, path, left = tree, [], []
    content = search.mapping(node)
    while key := search.wrapper(node, content):
        left += [name for name in map(_text, content) if name != key]
        path.append(key)
        node = content[key]
        content = search.mapping(node)
    notes = [f"the weights are under {'.'.join(map(repr, path))}"] if path else []
    if path and path[-1] in _AVERAGES:
        notes.append("they are a moving average (EMA): the file has no others")
    if _is_module(node):
        notes.append(f"the file holds a whole module, {node.callee}: its tensors were read, its code was not")
    found, others = search.collect(node, content)
    left += others
    if not found:
        raise CheckpointError(f"{source} holds no tensors")
    if left:
        notes.append(f"left out: {_listed(left)}")
    return found, notes


def strip_prefixes(named: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Remove prefixes that wrappers add to every name, such as `module.`, and report them."""
    notes: list[str] = []
    prefix = _next_prefix(named)
    while prefix:
        dropped = [name for name in named if name in _COUNTERS]
        if dropped:
            notes.append(f"left out: {_listed(dropped)}")
        named = {name.removeprefix(prefix): value for name, value in named.items() if name not in _COUNTERS}
        notes.append(f"the prefix {prefix!r} was dropped from every name")
        prefix = _next_prefix(named)
    return named, notes


def describe(tree: Any, source: str) -> dict[str, str]:
    """Return a file's information beside its weights, as text: epoch, arch, args.model ... (short, plain values)."""
    search = _Search(source)
    content = search.content(tree)
    if content is None or _is_module(tree):
        return {}
    found = _plain(content, "")
    for key in _SETTINGS:
        part = content.get(key)
        inner = part.state if isinstance(part, Call) and part.callee == "argparse.Namespace" else part
        found |= _plain(search.content(inner) or {}, f"{key}.")
    return found


def _plain(content: dict[Any, Any], prefix: str) -> dict[str, str]:
    return {
        prefix + key: str(value)
        for key, value in islice(content.items(), 1000)
        if isinstance(key, str)
        and len(key) <= _MAX_VALUE
        and (isinstance(value, int | float) or (isinstance(value, str) and len(value) <= _MAX_VALUE))
    }


def _is_module(node: Any) -> bool:
    """Return whether a node is a torch.nn.Module, judged by its state."""
    return isinstance(node, Call) and isinstance(node.state, dict) and {"_parameters", "_modules"} <= node.state.keys()


class _Search:
    """A walk through one tree, possibly a hostile one: with parts that are shared, cyclic, or growing as they unfold.

    Every access to a mapping costs its length out of one budget, so the walk ends soon for any tree.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.left = _MAX_LOOKS
        self.barren: set[int] = set()  # parts known to contain no tensor, by identity

    def pay(self, looks: int) -> None:
        self.left -= looks + 1
        if self.left < 0:
            raise CheckpointError(f"{self.source} is damaged or hostile: what it holds unfolds without end")

    def mapping(self, node: Any) -> dict[Any, Any]:
        """Return the content of a file's outermost object, or of a wrapper in it; refuse anything without content."""
        content = self.content(node)
        if is_tensor(node) or content is None:
            raise CheckpointError(f"{self.source} holds {_kind(node)} where a state dict should be")
        return content

    def content(self, node: Any) -> dict[Any, Any] | None:
        """Return the content of a mapping or a module, by key; None for anything else."""
        if isinstance(node, dict):
            self.pay(len(node))
            return node
        if not isinstance(node, Call):
            return None
        if _is_module(node):
            return self.module_content(node.state)
        if node.callee not in _MAPPINGS and node.entries is None:
            return None
        pairs = next((arg for arg in node.args if isinstance(arg, list)), [])  # an OrderedDict of Python 2
        self.pay(len(pairs) + len(node.entries or ()))
        content = {p[0]: p[1] for p in pairs if isinstance(p, list | tuple) and len(p) == 2 and isinstance(p[0], str)}
        return content | (node.entries or {})

    def module_content(self, state: dict[Any, Any]) -> dict[Any, Any]:
        """Return parameters, buffers and child modules: those that its state_dict() would hold, in its order."""
        hidden = state.get("_non_persistent_buffers_set")
        hidden = hidden.args[0] if isinstance(hidden, Call) and hidden.args else hidden
        hidden = hidden if isinstance(hidden, list | tuple) else ()
        self.pay(len(hidden))
        skipped = {name for name in hidden if isinstance(name, str)}
        content: dict[Any, Any] = {}
        for part in ("_parameters", "_buffers", "_modules"):
            inner = state.get(part)
            # A module is not a table of modules: following one here would allow unbounded recursion.
            for key, value in ({} if _is_module(inner) else self.content(inner) or {}).items():
                if value is not None and (part != "_buffers" or key not in skipped):
                    content[key] = value
        return content

    def wrapper(self, node: Any, content: dict[Any, Any]) -> str | None:
        """Return the key that holds the weights, or None where `content` is the state dict itself."""
        if _is_module(node):
            return None
        for key in (*_WRAPPERS, *_AVERAGES):
            value = content.get(key)
            if key in _AVERAGES and any(is_tensor(other) for other in content.values()):
                return None
            if not is_tensor(value) and self.holds_tensors(value):
                return key
        return None

    def holds_tensors(self, node: Any) -> bool:
        """Return whether there is a tensor anywhere in these mappings and modules."""
        seen: set[int] = set()
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if is_tensor(node):
                return True
            if id(node) in seen or id(node) in self.barren:
                continue
            content = self.content(node)
            if content is not None:
                seen.add(id(node))
                waiting += content.values()
        self.barren |= seen
        return False

    def collect(self, root: Any, content: dict[Any, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return the tensors of a state dict or module by dotted name, and the names of everything else."""
        nested = _is_module(root) or not any(is_tensor(value) for value in content.values())
        found: dict[str, Any] = {}
        others: list[str] = []
        waiting: list[tuple[str, Any, Any]] = [("", *item) for item in reversed(content.items())]
        while waiting:
            prefix, key, value = waiting.pop()
            name = prefix + _text(key)
            if len(name) > _MAX_NAME or len(found) + len(others) > _MAX_NAMES:
                raise CheckpointError(f"{self.source} is damaged or hostile: its names are too long or too many")
            if isinstance(key, str) and is_tensor(value):
                found[name] = value
            elif nested and key not in _TRAINING and not is_tensor(value) and self.holds_tensors(value):
                inner = self.content(value) or {}
                waiting += [(f"{name}.", *item) for item in reversed(inner.items())]
            elif not _is_module(value):  # an activation, say, has no weights
                others.append(name)
        return found, others


def _next_prefix(named: dict[str, Any]) -> str | None:
    names = [name for name in named if name not in _COUNTERS]
    for prefix in _PREFIXES:
        if names and all(name.startswith(prefix) and name != prefix for name in names):
            return prefix
    return None


def _text(key: Any) -> str:
    return key if isinstance(key, str) else "a key that is no text"


def _kind(node: Any) -> str:
    if is_tensor(node):
        return "a single tensor"
    if isinstance(node, Call | Named):
        return shown(node.callee if isinstance(node, Call) else node.name)
    return "a text" if isinstance(node, Long) else f"a {type(node).__name__}"


def _listed(names: list[str], most: int = 10) -> str:
    return ", ".join(map(shown, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
