"""Names: equal ones in other spellings, the user's map, and the alignment of what is left."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import Module, Trace, record, watch
from npformer.parity.names import Matching, match_names, read_map, write_map
from tests import support, tiny
from tests.sweep import sweep

Array = np.ndarray
CLASSES = [support.TWO_HEADS, support.NET, support.SWIFT]


@cache
def model(class_name: str) -> Any:
    return tiny.model(class_name).astype(np.float64)


@cache
def trace(class_name: str) -> Trace:
    return record(model(class_name), tiny.pictures().astype(np.float64))


def kinds(class_name: str) -> dict[str, str]:
    modules = dict(model(class_name).named_modules())
    found = {}
    for name in trace(class_name):
        owner, _, inner = name.partition("#")[0].partition(":")
        found[name] = inner or type(modules[owner]).__name__
    return found


def synthetic(*names: str, shape: tuple[int, ...] = (2, 3, 4, 5)) -> Trace:
    random = np.random.default_rng(0)
    values = {name: random.standard_normal(shape) + 3 * i for i, name in enumerate(names)}
    return Trace(values, dict.fromkeys(names, {4: "BCHW", 3: "BND", 2: "BD"}[len(shape)]))


def named(matching: Matching, how: str = "exact") -> dict[str, str]:
    return {ours: theirs for ours, theirs in matching.port_names.items() if matching.how[ours] == how}


# --- equal names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_name", CLASSES)
def test_the_same_names_are_the_same_values_whatever_is_in_them(class_name: str) -> None:
    t = trace(class_name)
    port = {name: np.zeros(3) for name in reversed(list(t))}
    matching = match_names(t, port)
    assert list(matching.port_names.items()) == [(name, name) for name in t]
    assert set(matching.how.values()) == {"exact"}
    assert not matching.unmatched
    assert not matching.confidence
    assert not matching.findings


@pytest.mark.parametrize("class_name", CLASSES)
@pytest.mark.parametrize("prefix", ["model.", "module.net.", "bare", "/"])
def test_prefixes_and_slashes_do_not_count(class_name: str, prefix: str) -> None:
    t = trace(class_name)
    family = next(name for name in t if name).partition(".")[0]

    def spell(name: str) -> str:
        if prefix == "/":
            return "/" + name.replace(".", "/")
        return name.removeprefix(f"{family}.") if prefix == "bare" else prefix + name

    port = {spell(name): value for name, value in t.items() if name and ":" not in name}
    matching = match_names(t, port)
    expected = {name: spell(name) for name in t if name and ":" not in name}
    assert named(matching) == expected
    assert not matching.unmatched


def test_a_family_prefix_that_only_we_lack() -> None:
    t = synthetic("encoder.a.conv", "encoder.a.norm", "encoder.b.conv", "layernorm")
    port = {f"efficientformer.{name}": value for name, value in t.items()}
    assert named(match_names(t, port)) == {name: f"efficientformer.{name}" for name in t}


def test_one_coincidence_makes_no_prefix() -> None:
    t = synthetic("a.b.conv", "a.c.conv", "a.d.conv")
    port = {"x.b.conv": np.zeros((9, 9)), "a.c.conv": t["a.c.conv"], "a.d.conv": t["a.d.conv"]}
    assert named(match_names(t, port)) == {"a.c.conv": "a.c.conv", "a.d.conv": "a.d.conv"}


@pytest.mark.parametrize(
    ("port", "ours"),
    [(["x.b.conv"], ["a.b.conv", "a.b.norm"]), (["p.conv", "p.norm", "p.act"], ["q.conv", "q.norm", "q.act"])],
)
def test_few_or_short_coincidences_make_no_prefix(port: list[str], ours: list[str]) -> None:
    assert not match_names(synthetic(*ours), {name: np.zeros((9, 9)) for name in port}).port_names


def test_names_without_the_prefix_keep_their_own() -> None:
    t = synthetic("eff.encoder.a.conv", "eff.encoder.b.conv", "classifier")
    port = {"/encoder/a/conv/Conv_output_0": t["eff.encoder.a.conv"], "/classifier/Gemm_output_0": t["classifier"]}
    port["/encoder/b/conv/Conv_output_0"] = t["eff.encoder.b.conv"]
    assert set(named(match_names(t, port))) == set(t)


def test_two_spellings_of_one_name_are_left_to_numbers() -> None:
    t = synthetic("a.b", "a.c")
    port = {"a/b": t["a.c"], "/a/b": t["a.b"]}
    matching = match_names(t, port)
    assert not named(matching)
    assert matching.port_names == {"a.b": "/a/b"} or matching.port_names["a.b"] == "/a/b"


ONNX = {
    "enc.conv": "/m/enc/conv/Conv_output_0",
    "enc.act#1": "/m/enc/act/Relu_output_0",
    "enc.conv2": "/m/enc/conv2/Conv_output_0",
    "enc.act": "/m/enc/act_1/Relu_output_0",
    "blocks.0.mlp.gelu": "/m/blocks.0/mlp/gelu/Mul_1_output_0",
    "blocks.0": "/m/blocks.0/Add_1_output_0",
    "seq.0": "/m/seq/seq.0/Conv_output_0",
    "": "logits",
}
ONNX_MORE = [
    "/m/blocks.0/Mul_output_0", "/m/blocks.0/Add_output_0", "/m/blocks.0/mlp/gelu/Div_output_0",
    "/m/blocks.0/mlp/gelu/Erf_output_0", "/m/blocks.0/mlp/gelu/Add_output_0", "/m/blocks.0/mlp/gelu/Mul_output_0",
]  # fmt: skip


def onnx_port(t: Trace) -> dict[str, Array]:
    random = np.random.default_rng(1)
    port: dict[str, Array] = {}
    for name, theirs in ONNX.items():
        scope = theirs.rpartition("/")[0]
        for more in ONNX_MORE if scope else ():
            if more.rpartition("/")[0] == scope:
                port[more] = random.standard_normal(t[name].shape)
        port[theirs] = random.standard_normal(t[name].shape)  # names count, not numbers
    port["/m/blocks.0/Shape_output_0"] = np.zeros(3)
    return port


def test_names_of_onnx_exporters() -> None:
    t = synthetic(*ONNX)
    matching = match_names(t, onnx_port(t))
    assert named(matching) == ONNX
    assert matching.unmatched == [name for name in onnx_port(t) if name not in ONNX.values()]


def test_of_ops_in_one_scope_the_last_that_fits_is_taken_and_without_an_order_none() -> None:
    t = synthetic(*ONNX)
    port = onnx_port(t)
    port["/m/blocks.0/mlp/gelu/Mul_1_output_0"] = np.zeros((7, 7))
    assert named(match_names(t, port))["blocks.0.mlp.gelu"] == "/m/blocks.0/mlp/gelu/Mul_output_0"
    unordered = named(match_names(t, port, ordered=False))
    assert "blocks.0.mlp.gelu" not in unordered
    assert unordered["enc.conv"] == ONNX["enc.conv"]


def test_a_second_call_needs_all_its_scopes() -> None:
    t = synthetic(*ONNX)
    port = onnx_port(t)
    del port[ONNX["enc.act"]]  # is the one that is left the first or the last?
    assert not {"enc.act", "enc.act#1"} & set(named(match_names(t, port)))


def test_the_ops_of_a_scope_are_not_the_value_of_a_module_that_hands_on_anothers() -> None:
    values = synthetic("attn.final", "other.a", "other.b")
    t = Trace({**values, "attn": values["attn.final"]}, {**values.layouts, "attn": "BCHW"})
    port = {"/attn/Reshape_output_0": np.ones((2, 3, 4, 5)), "/attn/final/MatMul_output_0": t["attn.final"]}
    port |= {"/other/a/Conv_output_0": t["other.a"], "/other/b/Conv_output_0": t["other.b"]}
    matching = match_names(t, port)
    assert "attn" not in matching.port_names
    assert matching.port_names["attn.final"] == "/attn/final/MatMul_output_0"


@pytest.mark.parametrize("theirs", ["logits", "output", "output0", "Output_0", "logits:0"])
def test_the_models_own_output(theirs: str) -> None:
    t = Trace({"a": np.ones((2, 3)), "": np.arange(10.0).reshape(2, 5)}, {"a": "BD", "": "BD"})
    assert named(match_names(t, {theirs: np.zeros((2, 5))})) == {"": theirs}
    assert not named(match_names(t, {theirs: np.zeros((2, 4))}))  # of another shape it may be anything
    assert not named(match_names(t, {theirs: np.zeros((2, 5)), "out": np.zeros((2, 5))}))


def test_the_input_if_the_dump_has_it() -> None:
    t = synthetic("pixel_values", "a")
    assert named(match_names(t, {"input": np.zeros((2, 4, 5, 3))})) == {"pixel_values": "input"}


def test_a_wrong_shape_does_not_unmatch_a_name() -> None:
    t = synthetic("a", "b")
    assert named(match_names(t, {"a": np.zeros((1, 1)), "b": t["b"]})) == {"a": "a", "b": "b"}


# --- the user's map ----------------------------------------------------------------------------------------------

MAPPED = synthetic("enc.blocks.0.conv", "enc.blocks.1.conv", "enc.blocks.1.conv#1", "enc.blocks.0:mixed", "head")
THEIRS = {name: np.zeros((2, 3, 4, 5)) for name in ("b0/conv2d", "b1/conv2d", "m0", "m1", "head", "a.b", "c")}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"enc.blocks.0.conv": "m1"}, {"enc.blocks.0.conv": "m1"}),
        ({"head": "c"}, {"head": "c"}),
        ({"head": None}, {}),
        ({"enc.blocks.*.conv": "b*/conv2d"}, {"enc.blocks.0.conv": "b0/conv2d", "enc.blocks.1.conv": "b1/conv2d"}),
        ({"enc.blocks.*:mixed": "m*"}, {"enc.blocks.0:mixed": "m0"}),
        ({"**.1.conv": "c", "enc.*.1.conv": "m1"}, {"enc.blocks.1.conv": "c"}),
        ({"*.*.conv": "b0/conv2d", "**.0.conv": "m1"}, None),
        (
            {"enc.blocks.*.conv": "b*/conv2d", "enc.blocks.1.conv": "m1"},
            {"enc.blocks.0.conv": "b0/conv2d", "enc.blocks.1.conv": "m1"},
        ),
        (
            {r"re:enc\.blocks\.(\d)\.(?P<op>\w+)": r"b\1/\g<op>2d"},
            {"enc.blocks.0.conv": "b0/conv2d", "enc.blocks.1.conv": "b1/conv2d"},
        ),
        ({"enc.blocks.*.conv": "b*/conv2d", "enc.blocks.0.conv": None}, {"enc.blocks.1.conv": "b1/conv2d"}),
    ],
)
def test_maps(names: dict[str, str | None], expected: dict[str, str] | None) -> None:
    if expected is None:  # stars end at dots, so the first pattern fits nothing
        with pytest.raises(ValueError, match="fits no value"):
            match_names(MAPPED, THEIRS, names)
        return
    matching = match_names(MAPPED, THEIRS, names)
    assert named(matching, "map") == expected
    assert named(matching) == ({} if "head" in names else {"head": "head"})
    assert not set(matching.unmatched) & set(expected.values())


def test_what_a_map_leaves_out_is_not_found_in_other_ways() -> None:
    port = {"x": MAPPED["head"]}
    assert match_names(MAPPED, port).port_names == {"head": "x"}
    assert match_names(MAPPED, port, {"head": None}).unmatched == ["x"]


def test_what_a_map_takes_is_not_matched_by_name_again() -> None:
    matching = match_names(MAPPED, THEIRS, {"enc.blocks.0.conv": "head"})
    assert matching.port_names == {"enc.blocks.0.conv": "head"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"enc.blocks.0.con": "c"}, "'enc.blocks.0.con', which is no value of the model; perhaps 'enc.blocks.0.conv'"),
        ({"head": "b0/conv2"}, "'head' to 'b0/conv2', which the port's dump lacks; perhaps 'b0/conv2d'"),
        ({"nothing.*": "b*"}, "which fits no value of the model"),
        ({"enc.blocks.*.conv": "x*"}, "but the port's dump lacks 'x0'"),
        ({"enc.*.*.conv": "b*"}, "the same number of stars"),
        ({"re:(": "c"}, "no regular expression"),
        ({"re:head": r"\1"}, "no template"),
    ],
)
def test_maps_that_name_what_is_not_there(names: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        match_names(MAPPED, THEIRS, names)


MATCHING = Matching(
    {"": "logits", "a.b#1": 'odd "name": #1', "c:d": "t7"}, {"": "exact", "a.b#1": "map", "c:d": "aligned"},
    {"c:d": 0.8349}, ["rest", "é"], [],
)  # fmt: skip


@pytest.mark.parametrize("ending", ["json", "yaml", "yml"])
def test_a_written_map_is_read_again(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"map.{ending}"
    write_map(MATCHING, path)
    assert read_map(path) == MATCHING.port_names
    text = path.read_text()
    assert "0.83" in text
    assert "rest" in text
    t = Trace({name: np.ones(2) for name in MATCHING.port_names}, dict.fromkeys(MATCHING.port_names, "D"))
    port = {name: np.ones(2) for name in ["rest", *MATCHING.port_names.values()]}
    assert match_names(t, port, path).port_names == match_names(t, port, str(path)).port_names == MATCHING.port_names


def test_an_unmatched_map_is_empty(tmp_path: Path) -> None:
    for ending in ("json", "yaml"):
        write_map(Matching({}, {}, {}, ["x"], []), tmp_path / f"m.{ending}")
        assert read_map(tmp_path / f"m.{ending}") == {}


def test_maps_by_hand(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": "b", "names": "c", "d": null}')
    assert read_map(tmp_path / "a.json") == {"a": "b", "names": "c", "d": None}
    (tmp_path / "a.yaml").write_text("# mine\nblocks.*.conv: b*/conv2d\na: null\n")
    assert read_map(tmp_path / "a.yaml") == {"blocks.*.conv": "b*/conv2d", "a": None}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.json", "[1]", "must hold a JSON object"), ("a.json", "{", "is not valid JSON"),
        ("a.json", '{"a": 1}', "quote numbers"), ("a.yaml", "- a", "must hold a mapping"),
        ("a.yaml", "a: b: c", "is not valid YAML"), ("a.yaml", "1: b", "quote numbers"),
        ("a.yaml", "!!python/object/apply:os.getcwd []", "is not valid YAML"), ("a.txt", "a b", "must be a .json"),
    ],
)  # fmt: skip
def test_files_that_are_no_maps(tmp_path: Path, file: str, content: str, message: str) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_map(tmp_path / file)


def test_missing_files_libraries_and_endings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.json, which does not exist"):
        match_names(MAPPED, THEIRS, tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match=r"path must end in .json, .yaml or .yml"):
        write_map(MATCHING, tmp_path / "map.csv")
    (tmp_path / "a.yml").write_text("a: b")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ImportError, match="PyYAML must be installed"):
        read_map(tmp_path / "a.yml")


# --- alignment ---------------------------------------------------------------------------------------------------


def values_of(t: Mapping[str, Array]) -> dict[str, bytes]:
    """Return a key that is equal for values with the same numbers in any order, which are interchangeable."""
    return {name: np.sort(np.round(value, 9), axis=None).tobytes() for name, value in t.items()}


def with_fault(class_name: str, at: float, kind: str) -> Trace:
    """A run in which the value at that place is wrong, and so is what follows from it."""
    random = np.random.default_rng(4)
    number = int(at * len(trace(class_name)))
    seen = 0

    def observe(name: str, module: Module, inputs: tuple[Any, ...], output: Array, layout: str | None) -> Array:
        nonlocal seen
        seen += 1
        if seen - 1 != number:
            return output
        return output * {"scaled": 1.1, "loud": 1e5, "noise": random.standard_normal(output.shape)}[kind]

    with watch(model(class_name), observe):
        return record(model(class_name), tiny.pictures().astype(np.float64))


def bfloat16(x: Array) -> Array:
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x8000) & np.uint32(0xFFFF0000)).view(np.float32)


LAID = {
    "NCHW": lambda x: x, "NHWC": lambda x: x.transpose(0, 2, 3, 1) if x.ndim == 4 else x,
    "tokens": lambda x: x.reshape(*x.shape[:2], -1).swapaxes(1, 2) if x.ndim == 4 and x.shape[2] > 2 else x,
}  # fmt: skip


class Anonymous:
    """A dump with meaningless names, and the true names of its values."""

    def __init__(self, run: Mapping[str, Array], keep: float, layout: str, dtype: Any, extra: float = 0) -> None:
        random = np.random.default_rng(int(100 * keep))
        self.truth: dict[str, str | None] = {}
        self.port: dict[str, Array] = {}
        for name, value in run.items():
            if random.random() >= keep:
                continue
            with np.errstate(over="ignore"):
                stored = bfloat16(value) if dtype == "bfloat16" else value.astype(dtype)
            stored = np.ascontiguousarray(LAID[layout](stored))
            for made in (stored * 0.7, np.tanh(stored), stored + 1)[: random.poisson(extra)]:
                self._add(made.astype(stored.dtype), None)
            self._add(stored, name)

    def _add(self, value: Array, name: str | None) -> None:
        self.truth[f"t{len(self.port)}"] = name
        self.port[f"t{len(self.port)}"] = value

    def score(self, t: Trace, matching: Matching) -> tuple[float, int]:
        """Return the fraction of the different values that is matched right, and the number matched wrong."""
        same = values_of(t)
        right, wrong = set(), 0
        for ours, theirs in matching.port_names.items():
            true = self.truth[theirs]
            if true is not None and same[true] == same[ours]:
                right.add(same[ours])
            else:
                wrong += 1
        return len(right) / len({same[name] for name in self.truth.values() if name is not None}), wrong


def align(class_name: str, dump: Anonymous, ordered: bool = True) -> tuple[float, int]:
    matching = match_names(trace(class_name), dump.port, None, kinds(class_name), ordered)
    assert set(matching.how.values()) <= {"aligned"}
    assert set(matching.confidence) == set(matching.port_names)
    assert all(0.5 <= sure <= 1 for sure in matching.confidence.values())
    assert len(set(matching.port_names.values())) == len(matching.port_names)
    return dump.score(trace(class_name), matching)


DUMPED = [("NCHW", np.float16), ("NHWC", "bfloat16"), ("tokens", np.float32)]


@pytest.mark.parametrize(("layout", "dtype"), DUMPED)
@pytest.mark.parametrize("keep", [1.0, 0.6, 0.2])
@pytest.mark.parametrize("class_name", CLASSES)
def test_values_without_names(class_name: str, keep: float, layout: str, dtype: Any) -> None:
    right, wrong = align(class_name, Anonymous(trace(class_name), keep, layout, dtype))
    assert right >= 0.97
    assert wrong == 0


@pytest.mark.parametrize("extra", [0.3, 1.5])
@pytest.mark.parametrize("keep", [1.0, 0.5])
@pytest.mark.parametrize("class_name", CLASSES)
def test_among_values_we_do_not_have(class_name: str, keep: float, extra: float) -> None:
    right, wrong = align(class_name, Anonymous(trace(class_name), keep, "NHWC", np.float32, extra))
    assert right >= 0.97
    assert wrong == 0


FAULTY = [
    (name, at, kind, *dumped)
    for name in CLASSES
    for at in (0.0, 0.05, 0.4, 0.7)
    for kind in ("scaled", "noise", "loud")
    for dumped in DUMPED
]


# Seven goes into none of the numbers of choices, so that every class, place, kind and way to dump has its turn.
@pytest.mark.parametrize(("class_name", "at", "kind", "layout", "dtype"), sweep(FAULTY, FAULTY[::7]))
def test_shape_and_order_carry_on_after_a_fault(
    class_name: str, at: float, kind: str, layout: str, dtype: Any
) -> None:
    run = with_fault(class_name, at, kind)
    right, wrong = align(class_name, Anonymous(run, 1.0, layout, dtype))
    assert right >= 0.95
    assert wrong == 0
    right, wrong = align(class_name, Anonymous(run, 0.5, layout, dtype))  # with gaps, what comes before it at least
    assert right >= (0.0 if at < 0.1 else 0.25)
    assert wrong == 0


CROWDED = [
    (name, keep, at, extra)
    for name in CLASSES
    for keep in (1.0, 0.7, 0.5)
    for at, extra in ((0.0, 0.1), (0.0, 0.3), (0.4, 0.1), (0.4, 0.3), (0.4, 1.5))
]


@pytest.mark.parametrize(("class_name", "keep", "at", "extra"), sweep(CROWDED, CROWDED[::4]))
def test_after_a_fault_and_among_others_nothing_is_wrong(
    class_name: str, keep: float, at: float, extra: float
) -> None:
    run = with_fault(class_name, at, "noise")
    right, wrong = align(class_name, Anonymous(run, keep, "NCHW", np.float32, extra))
    assert right >= (0.25 if at else 0)
    assert wrong == 0


@pytest.mark.parametrize("class_name", CLASSES)
@pytest.mark.parametrize("ordered", [False, True])
def test_a_shuffled_dump_is_matched_by_numbers(class_name: str, ordered: bool) -> None:
    dump = Anonymous(trace(class_name), 1.0, "NHWC", np.float16)
    names = list(dump.port)
    random = np.random.default_rng(0)
    random.shuffle(names)
    shuffled = {f"x{'abcdefgh'[i % 8]}{i * 7919 % 1009}": name for i, name in enumerate(names)}
    dump.port = {new: dump.port[name] for new, name in shuffled.items()}
    dump.truth = {new: dump.truth[name] for new, name in shuffled.items()}
    right, wrong = align(class_name, dump, ordered)
    assert right >= 0.9
    assert wrong == 0


def test_numbers_in_names_may_tell_the_order() -> None:
    run = with_fault(support.SWIFT, 0.4, "noise")
    dump = Anonymous(run, 1.0, "NCHW", np.float32)
    dump.port = {name: dump.port[name] for name in sorted(dump.port)}  # t0, t1, t10, t100, t101, ...
    right, wrong = align(support.SWIFT, dump, ordered=False)
    assert right >= 0.9
    assert wrong == 0


def overflown(dump: Anonymous) -> Anonymous:
    """A dump as of a port in half precision: some infinities, then nothing but NaN."""
    for position, name in enumerate(dump.port):
        flat = dump.port[name].reshape(-1)
        flat[::9] = (np.inf, -np.inf)[position % 2] if position > 100 else flat[::9]
        flat[:] = np.nan if position > 120 else flat
    return dump


def test_a_port_that_overflows_is_matched_all_the_same() -> None:
    t = trace(support.NET)
    right, wrong = align(support.NET, overflown(Anonymous(t, 1.0, "NCHW", np.float32)))
    assert right >= 0.95
    assert wrong == 0
    firsts = {value.tobytes(): name for name, value in reversed(list(t.items()))}.values()  # without values passed on
    run = {name: value for name, value in t.items() if name in set(firsts)}
    right, wrong = align(support.NET, overflown(Anonymous(run, 1.0, "NCHW", np.float32)))
    assert right >= 0.95
    assert wrong == 0


@pytest.mark.parametrize("class_name", CLASSES)
def test_our_input_may_be_missing_from_a_complete_dump(class_name: str) -> None:
    t = trace(class_name)
    values = {"pixel_values": tiny.pictures(), **t}
    reference = Trace(values, {"pixel_values": "BCHW", **t.layouts})
    dump = overflown(Anonymous(with_fault(class_name, 0.4, "noise"), 1.0, "NHWC", np.float32))
    matching = match_names(reference, dump.port, None, kinds(class_name))
    right, wrong = dump.score(t, matching)
    assert right >= 0.97
    assert wrong == 0


def test_names_anchor_what_has_none() -> None:
    """Most values have our names; the rest is aligned between them, and what we lack is left alone."""
    t = trace(support.SWIFT)
    random = np.random.default_rng(3)
    port, truth = {}, {}
    for position, (name, value) in enumerate(t.items()):
        theirs = name if position % 3 else f"unnamed{position}"
        port[f"foreign{position}"] = random.standard_normal(value.shape)
        port[theirs] = value.astype(np.float32)
        truth[theirs] = name
    matching = match_names(t, port, None, kinds(support.SWIFT))
    same = values_of(t)
    aligned = named(matching, "aligned")
    assert len(aligned) > 20
    assert all(same[truth[theirs]] == same[ours] for ours, theirs in aligned.items())
    covered = {same[ours] for ours in matching.port_names}
    assert covered == set(same.values())
    assert all(name.startswith(("foreign", "unnamed")) for name in matching.unmatched)


@pytest.mark.parametrize(("anonymous", "count", "every"), [(False, 60, 3), (True, 200, 40)])
def test_what_a_port_folds_away_is_not_replaced_by_another_value_between(
    anonymous: bool, count: int, every: int
) -> None:
    """Numbers around it are right, so there is no fault that would explain those that are not."""
    t = synthetic(*(f"layer{i}" for i in range(count)))
    random = np.random.default_rng(5)
    port: dict[str, Array] = {"else": np.zeros(3)} if anonymous else {}
    kept = [name for position, name in enumerate(t) if position % every != 1]
    for position, name in enumerate(t):
        if name in kept:
            port[f"t{position}" if anonymous else name] = t[name]
        else:
            port[f"{'t' if anonymous else 'stranger'}{position}"] = random.standard_normal(t[name].shape)
    matching = match_names(t, port)
    assert list(matching.port_names) == kept
    assert len(matching.unmatched) == len(port) - len(kept)


def test_without_order_and_likeness_nothing_is_guessed() -> None:
    t = trace(support.NET)
    random = np.random.default_rng(6)
    port = {f"t{i}": random.standard_normal(value.shape) for i, value in enumerate(t.values())}
    matching = match_names(t, port, None, kinds(support.NET), ordered=False)
    assert not matching.port_names
    assert not matching.findings
    assert len(matching.unmatched) == len(t)


def test_what_hands_on_a_value_that_was_found_is_left_out() -> None:
    t = synthetic("a", "c")
    t = Trace({"a": t["a"], "b": t["a"], "c": t["c"]}, dict.fromkeys("abc", "BCHW"))
    matching = match_names(t, {"a": t["a"], "copy": t["a"].copy(), "c": t["c"]})
    assert set(matching.port_names) == {"a", "c"}
    assert matching.unmatched == ["copy"]


def test_a_copy_in_another_layout_is_no_second_value() -> None:
    t = synthetic("a", "c")
    t = Trace({"a": t["a"], "b": t["a"], "c": t["c"]}, dict.fromkeys("abc", "BCHW"))
    port = {
        "t0": t["a"],
        "t1": t["a"].transpose(0, 2, 3, 1).copy(),
        "t2": t["c"],
        "t3": t["c"] * 3 + 9,
        "t4": t["c"] + 9,
    }
    assert match_names(t, port).port_names == {"a": "t0", "c": "t2"}


def test_of_equal_values_the_first_is_taken_and_the_others_only_if_the_port_has_them() -> None:
    t = trace(support.TWO_HEADS)
    stem = "efficientformer.patch_embed"
    port = {f"t{i}": t[name] for i, name in enumerate(t) if name != stem}
    assert f"{stem}.activation" in match_names(t, port).port_names
    assert stem not in match_names(t, port).port_names
    assert stem in match_names(t, {f"t{i}": value for i, value in enumerate(t.values())}).port_names


def test_words_in_names_break_ties_and_numbers_outweigh_them() -> None:
    random = np.random.default_rng(0)
    near = random.standard_normal((2, 3, 4, 5))
    t = Trace({"a": near, "b": near + 1e-3 * random.standard_normal(near.shape)}, {"a": "BCHW", "b": "BCHW"})
    what = {"a": "Conv2d", "b": "BatchNorm2d"}
    noisy = near + 5e-3 * random.standard_normal(near.shape)
    assert match_names(t, {"x/BatchNorm_3": noisy}, None, what).confidence == {}
    unlike = {"norm": t["a"].astype(np.float32), "conv": t["b"].astype(np.float32)}
    assert match_names(t, unlike, None, what, ordered=False).port_names in ({"a": "norm", "b": "conv"}, {})


def test_unsure_pairs_are_listed_and_not_used() -> None:
    random = np.random.default_rng(0)
    values = {f"v{i}": random.standard_normal((2, 40, 9)) for i in range(8)}
    t = Trace(values, dict.fromkeys(values, "BND"))
    matching = match_names(t, {"x": random.standard_normal((2, 40, 9)), "y": random.standard_normal((2, 40, 9))})
    assert not matching.port_names
    assert matching.unmatched == ["x", "y"]
    (finding,) = matching.findings
    assert finding.kind == "names"
    assert "'x' (0." in finding.text
    assert "not used" in finding.text


def test_matches_without_names_are_told() -> None:
    t = trace(support.NET)
    matching = match_names(t, {f"t{i}": value for i, value in enumerate(t.values())}, None, kinds(support.NET))
    assert any(f"{len(matching.port_names)} values were matched by shape" in f.text for f in matching.findings)


def test_a_written_alignment_can_be_corrected(tmp_path: Path) -> None:
    t = trace(support.NET)
    port = {f"t{i}": value for i, value in enumerate(t.values())}
    write_map(match_names(t, port), tmp_path / "map.json")
    content = json.loads((tmp_path / "map.json").read_text())
    first, second = list(content["names"])[:2]
    content["names"][first], content["names"][second] = None, content["names"][first]
    (tmp_path / "map.json").write_text(json.dumps(content))
    matching = match_names(t, port, tmp_path / "map.json")
    assert first not in matching.port_names
    assert matching.port_names[second] == "t0"
    assert set(matching.how.values()) <= {"map", "aligned"}
