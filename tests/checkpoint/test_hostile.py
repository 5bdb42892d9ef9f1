"""Pickles made to run something, or broken in every way: none runs anything, all are refused in one sentence."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint.build import (
    LEGACY_STATE,
    NUMBERS,
    REBUILD,
    STATE,
    Member,
    archive,
    call,
    legacy,
    listed,
    many,
    mapping,
    name,
    number,
    numbers,
    pickled,
    storage,
    tensor,
    text,
    zipped,
)
from tests.checkpoint.watch import assert_refused


def fire(*arguments: Any) -> None:
    """Function that some of these files try to call."""
    raise SystemExit("a file of weights ran code")


# --- code ------------------------------------------------------------------------------------------------------------

SYSTEM, COMMAND = name("os", "system"), text("touch canary")
STACKED = b"\x8c\x02os\x8c\x06system\x93"
OWN = name("tests.checkpoint.test_hostile", "fire")
CODE = {
    "GLOBAL REDUCE": SYSTEM + many(COMMAND) + b"R",
    "GLOBAL alone": SYSTEM,
    "STACK_GLOBAL": STACKED + many(COMMAND) + b"R",
    "STACK_GLOBAL with memoised names": b"\x8c\x06system\x940" + b"\x8c\x02os" + b"h\x00\x93" + many(COMMAND) + b"R",
    "STACK_GLOBAL with a name that is no text": b"K\x01K\x02\x93",
    "STACK_GLOBAL with a list": b"]]\x93",
    "INST": b"(" + COMMAND + b"ios\nsystem\n",
    "OBJ": b"(" + SYSTEM + COMMAND + b"o",
    "OBJ of an allowed class": b"(" + name("collections", "OrderedDict") + b"o",
    "INST of an allowed class": b"(icollections\nOrderedDict\n",
    "NEWOBJ": SYSTEM + many(COMMAND) + b"\x81",
    "NEWOBJ_EX": SYSTEM + many(COMMAND) + b"}\x92",
    "BUILD": SYSTEM + b"}" + text("x") + number(1) + b"sb",
    "EXT1": b"\x82\x01",
    "EXT2": b"\x83\x01\x00",
    "EXT4": b"\x84\x01\x00\x00\x00",
    "PERSID": b"Pos.system\n",
    "BINPERSID": many(text("storage"), SYSTEM, text("0"), text("cpu"), number(6)) + b"Q",
    "BINPERSID of a module": many(text("module"), SYSTEM, text("x.py"), text("source")) + b"Q",
    "BINPERSID of a module without class": many(text("module"), text("os"), text("x.py"), text("source")) + b"Q",
    "NEXT_BUFFER": b"\x97",
    "READONLY_BUFFER": b"]\x98",
    "an unknown instruction": b"\xff",
    "text instructions of protocol 0": b"S'os'\n",
    "eval": call(name("__builtin__", "eval"), text("fire()")),
    "exec": call(name("builtins", "exec"), text("fire()")),
    "__import__": call(name("__builtin__", "__import__"), text("this")),
    "compile": call(name("builtins", "compile"), text("x"), text("x"), text("exec")),
    "open": call(name("io", "open"), text("canary"), text("w")),
    "getattr chain": call(call(name("__builtin__", "getattr"), name("posix", "system"), text("__call__")), COMMAND),
    "apply": call(name("__builtin__", "apply"), SYSTEM, listed(COMMAND)),
    "map": call(name("__builtin__", "map"), SYSTEM, listed(COMMAND)),
    "posix": call(name("posix", "system"), COMMAND),
    "nt": call(name("nt", "system"), COMMAND),
    "subprocess": call(name("subprocess", "Popen"), listed(COMMAND)),
    "runpy": call(name("runpy", "_run_code"), text("fire()"), b"}"),
    "pickle.loads": call(name("pickle", "loads"), b"C\x02N."),
    "torch.load": call(name("torch", "load"), text("x")),
    "torch.hub": call(name("torch.hub", "load"), text("x")),
    "torch storage from bytes": call(name("torch.storage", "_load_from_bytes"), b"C\x02N."),
    "numpy.load": call(name("numpy", "load"), text("x")),
    "numpy.f2py": call(name("numpy.testing._private.utils", "runstring"), text("fire()"), b"}"),
    "webbrowser": call(name("webbrowser", "open"), text("http://localhost")),
    "ctypes": call(name("ctypes", "CDLL"), text("libc.so.6")),
    "attribute of this module": OWN + b")R",
    "dots in the attribute": b"\x8c\x0ctorch._utils\x8c\x09os.system\x93",
    "dots into os": name("torch._utils", "os.system"),
    "an allowed module, another name": name("collections", "abc"),
    "codecs": call(name("_codecs", "decode"), text("x")),
    "a class that fires when made": name("tests.checkpoint.test_hostile", "Canary") + b")\x81",
    "importlib": call(name("importlib", "import_module"), text("this")),
    "operator": call(name("operator", "attrgetter"), text("system")),
    "a name with a space": name("posix ", "system"),
    "a name in other letters": name("p\u043esix", "system"),
    "an empty name": name("", ""),
    "a name without end": b"cos\nsystem",
    "a long name": name("a" * 300, "b"),
    "a name that is no UTF-8": b"c\xff\xfe\nsystem\n",
    "a name of control characters": name("a\x1b[2J", "\x07"),
    "call of a text": call(text("os.system"), COMMAND),
    "call of a number": call(number(1), COMMAND),
    "call of None": b"N)R",
    "call with a list": name("collections", "OrderedDict") + b"]R",
    "state of a list": b"]}b",
    "state of a dict": b"}}b",
    "state of a name": name("collections", "OrderedDict") + b"}b",
}  # fmt: skip
WAYS: dict[str, Callable[[bytes], bytes]] = {
    "alone": lambda code: code,
    "beside weights": lambda code: mapping({"a": code, "weight": tensor()}),
    "memoised": lambda code: mapping({"a": code + b"\x94", "b": b"h\x00", "weight": tensor()}),
    "in a list that is dropped": lambda code: b"](" + code + b"e0" + STATE,
    "as a state": lambda code: name("argparse", "Namespace") + b")\x81" + code + b"b",
    "as a key": lambda code: b"}(" + code + b"Nu",
    "as a hook": lambda code: call(REBUILD, storage(), number(0), numbers((6,)), numbers((1,)), b"\x89", code),
    "as a part of a reference": lambda code: many(text("storage"), code, text("0"), text("cpu"), number(6)) + b"Q",
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", CODE)
def test_nothing_in_a_file_runs(kind: str, way: str, tmp_path: Path) -> None:
    body = WAYS[way](CODE[kind])
    assert_refused(zipped(body), tmp_path)
    for part in ("magic", "protocol", "system", "keys"):
        assert_refused(legacy(LEGACY_STATE, **{part: pickled(body)}), tmp_path)
    assert_refused(legacy(body), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("code", ["GLOBAL REDUCE", "STACK_GLOBAL", "NEWOBJ_EX", "getattr chain", "BINPERSID"])
def test_the_name_that_was_asked_for_is_in_the_error(code: str, tmp_path: Path) -> None:
    message = assert_refused(zipped(CODE[code]), tmp_path)
    asked = "posix.system" if code == "getattr chain" else "os.system"
    assert message == f"{tmp_path / 'file'} asks for {asked}, which is refused: no weights need it"


@pytest.mark.parametrize("code", CODE)
def test_what_pythons_own_pickle_would_run_is_refused_after_the_end_too(code: str, tmp_path: Path) -> None:
    members = [Member("f/data.pkl", pickled(STATE) + pickled(CODE[code])), Member("f/data/0", NUMBERS)]
    assert "goes on after its end" in assert_refused(archive(members), tmp_path)


class Payload:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("function", [fire, eval, print, getattr, os.getcwd, open])
def test_what_pythons_own_pickler_writes(function: Any, protocol: int, tmp_path: Path) -> None:
    raw = pickle.dumps({"weight": Payload(function, "raise SystemExit")}, protocol)
    assert_refused(archive([Member("f/data.pkl", raw), Member("f/data/0", NUMBERS)]), tmp_path)


# --- pickles that are no programs ------------------------------------------------------------------------------------

BROKEN = {
    "empty": b"",
    "no protocol": b"N.",
    "protocol 0": b"\x80\x00N.",
    "protocol 1": b"\x80\x01N.",
    "protocol 6": b"\x80\x06N.",
    "protocol twice": b"\x80\x02\x80\x02N.",
    "no end": b"\x80\x02N",
    "empty stack at the end": b"\x80\x02.",
    "two values at the end": b"\x80\x02NN.",
    "open group at the end": b"\x80\x02(N.",
    "pop of nothing": b"\x80\x020.",
    "pop beneath a group": b"\x80\x02N(00N.",
    "group never opened": b"\x80\x02t.",
    "dup of nothing": b"\x80\x022.",
    "dup beneath a group": b"\x80\x02N(2t.",
    "recall of nothing": b"\x80\x02h\x00.",
    "recall far away": b"\x80\x02j\xff\xff\xff\xff.",
    "store of nothing": b"\x80\x02q\x00.",
    "store out of order": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "append to a number": b"\x80\x02K\x01Na.",
    "append to a dict": b"\x80\x02}Na.",
    "append to a tuple": b"\x80\x02)(Ne.",
    "set in a list": b"\x80\x02]NNs.",
    "a key without value": b"\x80\x02}(Nu.",
    "a key without value in DICT": b"\x80\x02(Nd.",
    "tuple of too few": b"\x80\x02N\x87.",
    "text longer than the file": b"\x80\x02X\xff\xff\xff\x7fab.",
    "text of 2^63": b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\x7fab.",
    "bytes of 2^64": b"\x80\x02\x8e" + b"\xff" * 8 + b"ab.",
    "bytearray of 2^62": b"\x80\x02\x96\0\0\0\0\0\0\0\x40ab.",
    "bytestring of -1": b"\x80\x02T\xff\xff\xff\xffab.",
    "integer of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7fab.",
    "integer of -1 bytes": b"\x80\x02\x8b\xff\xff\xff\xffab.",
    "integer of 300 bytes": b"\x80\x02\x8b\x2c\x01\0\0" + b"\x01" * 300 + b".",
    "frame longer than the file": b"\x80\x04\x95\xff\xff\0\0\0\0\0\0N.",
    "frame of 2^64": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "text that is no UTF-8": b"\x80\x02X\x02\0\0\0\xc3\x28.",
    "half a surrogate": b"\x80\x02X\x03\0\0\0\xed\xa0\x80.",
    "unfinished number": b"\x80\x02J\x01.",
    "unfinished float": b"\x80\x02G\x01.",
    "persistent id of nothing": b"\x80\x02Q.",
    "BUILD of nothing": b"\x80\x02b.",
    "REDUCE of nothing": b"\x80\x02R.",
    "unhashable key": b"\x80\x02}](NesN.",
    "zeros": bytes(100),
    "ones": b"\xff" * 100,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_pickles_are_refused(kind: str, tmp_path: Path) -> None:
    raw = BROKEN[kind]
    assert_refused(archive([Member("f/data.pkl", raw), Member("f/data/0", NUMBERS)]), tmp_path)
    for part in ("magic", "protocol", "system", "body", "keys"):
        assert_refused(legacy(LEGACY_STATE, **{part: raw}), tmp_path)
