"""Reader of a pickle as a tree of plain data, executing nothing.

A pickle is a program for a small stack machine, and Python's own machine executes it: GLOBAL imports any name, REDUCE
calls it. The machine here decodes the same instructions but cannot execute them. It holds no reference to `importlib`,
`getattr`, `eval` or any class but those below, so

- a name (GLOBAL, STACK_GLOBAL) becomes a `Named`, which is its text: checked against a list, never looked up;
- a call (REDUCE, NEWOBJ, NEWOBJ_EX) becomes a `Call`, a record of what the file asked for: never made;
- BUILD, APPEND(S) and SETITEM(S) on a `Call` fill fields of that record; no `__setstate__`, no attribute by name;
- a persistent id becomes a `Persistent`, which the reader of the container interprets;
- INST, OBJ, EXT1-4, PERSID, the out-of-band buffers and all text instructions of protocols 0 and 1 are refused.

Nesting and memoising change nothing: a reference to a record is only a reference to a record. The list of names is
therefore a second line of defence, not the first; its purpose is that a hostile file is refused by name instead of
silently misread.

Time and memory are linear in the number of instructions, which is limited, and every instruction makes at most one
small object or moves existing ones. Long texts and bytes are not decoded, only referenced (`Long`). Of the file's
content only texts are hashed, whose hash Python randomises: another key is boxed and hashes by identity. Memo
positions must be used in order, as picklers do, so the memo is a list. Nothing recurses, here or in the result.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .weights import CheckpointError

MAX_STEPS = 400_000  # EfficientNet-B7, optimizer and average: 160,000 as state dicts, 290,000 as pickled modules
MAX_NAMES = 2_000  # different globals; a pickled module of any library mentions some 50
MAX_TEXT = 8_000_000  # bytes of all texts up to _LONG together
_LONG = 4096  # bytes: longer texts stay in the file until they are needed
_MAX_INT = 255  # bytes
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # protocol 2 keeps the names of Python 2

_NAMES = """
    collections.OrderedDict collections.defaultdict collections.Counter collections.deque
    builtins.set builtins.frozenset builtins.list builtins.dict builtins.tuple builtins.getattr builtins.object
    builtins.bytes builtins.bytearray builtins.int builtins.float builtins.bool builtins.str builtins.complex
    builtins.slice builtins.range
    _codecs.encode copyreg._reconstructor functools.partial types.SimpleNamespace argparse.Namespace
    datetime.datetime datetime.date datetime.timedelta uuid.UUID
    torch._utils._rebuild_tensor torch._utils._rebuild_tensor_v2 torch._utils._rebuild_tensor_v3
    torch._utils._rebuild_parameter torch._utils._rebuild_parameter_with_state torch._tensor._rebuild_from_type_v2
    torch._utils._rebuild_qtensor torch._utils._rebuild_sparse_tensor torch._utils._rebuild_sparse_csr_tensor
    torch._utils._rebuild_nested_tensor torch._utils._rebuild_meta_tensor_no_storage
    torch._utils._rebuild_device_tensor_from_numpy torch._utils._rebuild_device_tensor_from_cpu_tensor
    torch._utils._rebuild_wrapper_subclass
    torch.Size torch.device torch.Tensor torch.Generator torch.UntypedStorage torch.storage.UntypedStorage
    torch.storage.TypedStorage torch.storage._LegacyStorage torch.serialization._get_layout torch._C._nn.gelu
    numpy.ndarray numpy.dtype numpy.core.multiarray._reconstruct numpy.core.multiarray.scalar
    numpy._core.multiarray._reconstruct numpy._core.multiarray.scalar
    numpy.core.numeric._frombuffer numpy._core.numeric._frombuffer
    addict.addict.Dict addict.Dict easydict.EasyDict yacs.config.CfgNode fvcore.common.config.CfgNode
"""
_ALLOWED = frozenset(_NAMES.split())
_ALLOWED_PATTERNS = re.compile(
    r"""
      torch\.(cuda\.)?[A-Za-z0-9_]+Storage                                 # torch.FloatStorage, torch.cuda.HalfStorage
    | torch\.(b?float|complex|q?u?int)[0-9][0-9a-z_]*(fn|fnuz)? | torch\.bool  # torch.float32, torch.float8_e4m3fn
    | torch\.(strided|contiguous_format|preserve_format|channels_last|per_tensor_affine|per_channel_affine)
    | numpy\.(bool_?|u?int(8|16|32|64)|float(16|32|64))
    | pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path
    | __main__\.\w+                                                         # a module class of the saving script
    | (torch\.(nn|optim|ao\.nn|cuda\.amp|amp|nn\.parallel)|torchvision\.(models|ops)|timm|transformers|mmengine|mmcv
      |mmcls|mmpretrain|mmdet|mmseg|pytorch_lightning|lightning|lightning_fabric|lightning_utilities|omegaconf
      |efficientnet_pytorch|models?|util|utils)(\.\w+)+
    """,
    re.VERBOSE | re.ASCII,
)


@dataclass(slots=True, eq=False, repr=False)
class Named:
    """A global name of the file, as dotted text: "torch.FloatStorage"."""

    name: str


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """A call that the file asks for: callee, arguments, and later changes to the result; none of it was executed.

    state: from BUILD. items: from APPEND(S). entries: from SETITEM(S).
    """

    callee: str
    args: tuple[Any, ...]
    state: Any = None
    items: list[Any] | None = None
    entries: dict[Any, Any] | None = None


@dataclass(slots=True, eq=False, repr=False)
class Persistent:
    """An object stored outside the pickle, such as a storage; only its identifier is known here."""

    identifier: Any


@dataclass(slots=True, eq=False, repr=False)
class Long:
    """A long text or long bytes, still in the file. encoding: "utf-8", "latin-1", or "" for bytes."""

    raw: memoryview
    encoding: str


@dataclass(slots=True, eq=False, repr=False)
class OddKey:
    """A key of a mapping that is not text."""

    value: Any


@dataclass(frozen=True, slots=True)
class Pickle:
    """One pickle as a tree. persistent: all its persistent objects, in order. end: bytes read."""

    tree: Any
    persistent: list[Persistent]
    end: int


def load(raw: memoryview, source: str) -> Pickle:
    """Read the pickle at the start of `raw`; `source` names the file in errors.

    The tree consists of None, bool, int, float, str, bytes, tuple, list (sets too), dict and the classes above. It may
    share parts and contain itself. Raises CheckpointError.
    """
    machine = _Machine(raw, source)
    try:
        return machine.run()
    except UnicodeDecodeError:
        raise CheckpointError(f"{source} is damaged: a text in its pickle is not UTF-8") from None


def shown(text: str, most: int = 100) -> str:
    """Return a text of the file as an error may quote it: on one line, in ASCII, truncated."""
    return ascii(text if len(text) <= most else text[:most] + "...")[1:-1]


def is_allowed(name: str) -> bool:
    """Return whether a weight file may mention that global."""
    return name in _ALLOWED or _ALLOWED_PATTERNS.fullmatch(name) is not None


class _Machine:
    """The stack machine, one method per instruction or kind of instruction; `_STEPS` maps bytes to instructions."""

    def __init__(self, raw: memoryview, source: str) -> None:
        self.raw, self.source, self.position = raw, source, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack at each MARK
        self.memo: list[Any] = []
        self.names: dict[str, Named] = {}
        self.persistent: list[Persistent] = []
        self.text_left = MAX_TEXT

    def run(self) -> Pickle:
        if self.number(1) != 0x80 or self.number(1) not in range(2, 6):  # PROTO
            raise self.error("does not begin with protocol 2 to 5")
        for _ in range(MAX_STEPS):
            if self.position >= len(self.raw):
                raise self.error("ends without a last instruction")
            code = self.raw[self.position]
            self.position += 1
            if code == ord("."):  # STOP
                return Pickle(self.result(), self.persistent, self.position)
            step = _STEPS.get(code)
            if step is None:
                raise self.error(f"uses the instruction {chr(code)!r}, which weights do not need")
            step(self)
        raise self.error(f"takes more than {MAX_STEPS} steps")

    def error(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.source} is damaged or hostile: its pickle {what}")

    def result(self) -> Any:
        if len(self.stack) != 1 or self.marks:
            raise self.error(f"ends with {len(self.stack)} values instead of one")
        return self.stack[0]

    # --- reading the arguments of instructions ---

    def take(self, count: int) -> memoryview:
        start, self.position = self.position, self.position + count
        if count < 0 or self.position > len(self.raw):
            raise self.error("ends in the middle of an instruction")
        return self.raw[start : self.position]

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def line(self) -> str:
        head = bytes(self.raw[self.position : self.position + 256])
        length = head.find(b"\n")
        if length < 0:
            raise self.error("has a name without end")
        self.position += length + 1
        return head[:length].decode("utf-8")

    def text(self, count: int, encoding: str) -> None:
        raw = self.take(count)
        if count > _LONG:
            self.stack.append(Long(raw, encoding))
            return
        self.text_left -= count
        if self.text_left < 0:
            raise self.error(f"holds more than {MAX_TEXT} bytes of text")
        self.stack.append(str(raw, encoding) if encoding else bytes(raw))

    def integer(self, count: int) -> None:
        if not 0 <= count <= _MAX_INT:
            raise self.error(f"has an integer of {count} bytes")
        self.stack.append(self.number(count, signed=True))

    def double(self) -> None:
        self.stack.append(struct.unpack(">d", self.take(8))[0])

    def frame(self) -> None:
        if self.number(8) > len(self.raw) - self.position:
            raise self.error("has a frame that is longer than the file")

    # --- the stack and the memo ---

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise self.error("takes a value from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        self.stack.append(value := self.pop())
        return value

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise self.error("closes a group that it never opened")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def drop(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def get(self, index: int) -> None:
        if index >= len(self.memo):
            raise self.error(f"recalls memo {index}, which it never stored")
        self.stack.append(self.memo[index])

    def put(self, index: int) -> None:
        if index > len(self.memo):
            raise self.error(f"stores memo {index} out of order")
        self.memo[index : index + 1] = [self.top()]

    # --- containers ---

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(items[::-1]))

    def extend(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Call):
            target.items = [] if target.items is None else target.items
            target = target.items
        if not isinstance(target, list):
            raise self.error(f"appends to a {type(target).__name__}")
        target.extend(items)

    def update(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Call):
            target.entries = {} if target.entries is None else target.entries
            target = target.entries
        if not isinstance(target, dict) or len(items) % 2:
            raise self.error(f"sets {len(items)} keys and values of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key if type(key) is str else OddKey(key)] = value

    def dictionary(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self.update(items)

    def two(self) -> list[Any]:
        value, key = self.pop(), self.pop()
        return [key, value]

    # --- names, calls and objects stored elsewhere ---

    def named(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise self.error("has a global whose name is no text")
        full = f"{_PYTHON_2.get(module, module)}.{name}"
        if full not in self.names:
            if not is_allowed(full):
                raise CheckpointError(f"{self.source} asks for {shown(full)}, which is refused: no weights need it")
            if len(self.names) >= MAX_NAMES:
                raise self.error(f"mentions more than {MAX_NAMES} names")
            self.names[full] = Named(full)
        self.stack.append(self.names[full])

    def call(self, keywords: bool = False) -> None:
        if keywords:
            self.pop()
        args, callee = self.pop(), self.pop()
        if type(args) is not tuple or not isinstance(callee, Named | Call):
            raise self.error(f"calls a {type(callee).__name__} with a {type(args).__name__}")
        self.stack.append(Call(callee.name if isinstance(callee, Named) else callee.callee, args))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if not isinstance(target, Call):
            raise self.error(f"sets the state of a {type(target).__name__}")
        target.state = state

    def elsewhere(self) -> None:
        identifier = self.pop()
        # Old files wrap the class of a module with its source code; only the class's name is used.
        if type(identifier) is tuple and len(identifier) == 4 and identifier[0] == "module":
            if not isinstance(identifier[1], Named):
                raise self.error("has a module whose class is no name")
            self.stack.append(identifier[1])
            return
        self.persistent.append(Persistent(identifier))
        self.stack.append(self.persistent[-1])


_STEPS: dict[int, Callable[[_Machine], None]] = {
    0x95: lambda m: m.frame(),
    ord("N"): lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),
    0x89: lambda m: m.stack.append(False),
    ord("K"): lambda m: m.stack.append(m.number(1)),
    ord("M"): lambda m: m.stack.append(m.number(2)),
    ord("J"): lambda m: m.stack.append(m.number(4, signed=True)),
    0x8A: lambda m: m.integer(m.number(1)),
    0x8B: lambda m: m.integer(m.number(4, signed=True)),
    ord("G"): lambda m: m.double(),
    ord("X"): lambda m: m.text(m.number(4), "utf-8"),
    0x8C: lambda m: m.text(m.number(1), "utf-8"),
    0x8D: lambda m: m.text(m.number(8), "utf-8"),
    ord("U"): lambda m: m.text(m.number(1), "latin-1"),  # a str of Python 2: text or bytes, undecidable
    ord("T"): lambda m: m.text(m.number(4, signed=True), "latin-1"),
    ord("C"): lambda m: m.text(m.number(1), ""),
    ord("B"): lambda m: m.text(m.number(4), ""),
    0x8E: lambda m: m.text(m.number(8), ""),
    0x96: lambda m: m.text(m.number(8), ""),  # a bytearray
    ord("("): lambda m: m.mark(),
    ord("0"): lambda m: m.drop(),
    ord("1"): lambda m: m.pop_mark().clear(),
    ord("2"): lambda m: m.stack.append(m.top()),
    ord("h"): lambda m: m.get(m.number(1)),
    ord("j"): lambda m: m.get(m.number(4)),
    ord("q"): lambda m: m.put(m.number(1)),
    ord("r"): lambda m: m.put(m.number(4)),
    0x94: lambda m: m.put(len(m.memo)),
    ord(")"): lambda m: m.stack.append(()),
    ord("t"): lambda m: m.stack.append(tuple(m.pop_mark())),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("]"): lambda m: m.stack.append([]),
    0x8F: lambda m: m.stack.append([]),  # a set: only its items matter here
    ord("l"): lambda m: m.stack.append(m.pop_mark()),
    0x91: lambda m: m.stack.append(m.pop_mark()),  # a frozenset
    ord("a"): lambda m: m.extend([m.pop()]),
    ord("e"): lambda m: m.extend(m.pop_mark()),
    0x90: lambda m: m.extend(m.pop_mark()),
    ord("}"): lambda m: m.stack.append({}),
    ord("d"): lambda m: m.dictionary(),
    ord("s"): lambda m: m.update(m.two()),
    ord("u"): lambda m: m.update(m.pop_mark()),
    ord("c"): lambda m: m.named(m.line(), m.line()),
    0x93: lambda m: m.named(*m.two()),
    ord("R"): lambda m: m.call(),
    0x81: lambda m: m.call(),
    0x92: lambda m: m.call(keywords=True),
    ord("b"): lambda m: m.build(),
    ord("Q"): lambda m: m.elsewhere(),
}
