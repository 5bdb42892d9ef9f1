"""PyTorch's weight files, written by hand: the arrays, the wrappers removed, and the notes about them."""

from __future__ import annotations

import json
import mmap
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer.checkpoint.torch_file import read_torch, read_torch_index
from npformer.checkpoint.unwrap import unwrap
from npformer.checkpoint.weights import CheckpointError, Weights
from tests.checkpoint.build import (
    KINDS,
    LEGACY_STATE,
    NUMBERS,
    ORDERED,
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
    pickled,
    storage,
    tensor,
    text,
    zipped,
)

VALUES = np.arange(6, dtype="f4").reshape(2, 3)


def read(content: bytes, path: Path) -> Weights:
    (path / "file").unlink(missing_ok=True)  # never write into a file that is still mapped
    (path / "file").write_bytes(content)
    return read_torch(path / "file")


def in_both(path: Path, shape: Any, stride: Any, offset: int, kind: str, raw: bytes, count: int) -> list[np.ndarray]:
    """The same tensor out of either container."""
    results = []
    for old in (False, True):
        where = storage("0", count, kind, old)
        body = mapping({"a": tensor(where, shape, stride, offset)})
        content = legacy(body, {"0": (count, raw)}) if old else zipped(body, {"0": raw})
        results.append(read(content, path).arrays["a"])
    return results


# --- containers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("content", "container"), [(zipped(STATE), "zip"), (legacy(LEGACY_STATE), "before 1.6")])
def test_both_containers_are_told_by_their_first_bytes(content: bytes, container: str, tmp_path: Path) -> None:
    weights = read(content, tmp_path)
    assert weights.container == f"PyTorch {container}"
    assert list(weights.arrays) == ["weight"]
    np.testing.assert_array_equal(weights.arrays["weight"], VALUES)
    assert (weights.notes, weights.metadata) == ([], {})


@pytest.mark.parametrize("dtype", KINDS)
def test_every_dtype_and_layout(dtype: str, tmp_path: Path) -> None:
    base = np.arange(30).astype(dtype)
    width = base.itemsize
    for shape, stride, offset in [
        ((5, 6), (6, 1), 0), ((6, 5), (1, 6), 0), ((2, 3), (12, 2), 5), ((4,), (0,), 7), ((3, 2), (0, 1), 1),
        ((1, 4, 1), (999, 7, 5), 3), ((0,), (1,), 0), ((3, 0), (1, 1), 30), ((2, 2, 2), (1, 1, 1), 26),
        ((30,), (1,), 0), ((), (), 9),
    ]:  # fmt: skip
        strides = [width * step for step in stride]
        expected = np.lib.stride_tricks.as_strided(base[offset:], shape, strides)
        for array in in_both(tmp_path, shape, stride, offset, KINDS[dtype], base.tobytes(), 30):
            assert (array.shape, array.dtype) == (expected.shape, base.dtype)
            np.testing.assert_array_equal(array, expected)
            assert array.flags.aligned
            assert array.size == 0 or not array.flags.writeable


def test_bfloat16_is_widened_once_per_storage(tmp_path: Path) -> None:
    bits = np.arange(2**16, dtype="<u2")
    for array in in_both(tmp_path, (2**15,), (2,), 1, "BFloat16", bits.tobytes(), 2**16):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array.view(np.uint32), (bits[1::2].astype(np.uint32) << 16))
    where = storage("0", 4, "BFloat16")
    body = mapping({f"w{i}": tensor(where, (i,), (1,)) for i in range(4)})
    arrays = list(read(zipped(body, {"0": bytes(8)}), tmp_path).arrays.values())
    assert np.shares_memory(arrays[1], arrays[3])


def map_of(array: Any) -> mmap.mmap | None:
    while array is not None and not isinstance(array, mmap.mmap):
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return array


def test_numbers_stay_in_the_file(tmp_path: Path) -> None:
    raw = np.zeros(4_000_000, "f4").tobytes()
    body = mapping({"a": tensor(storage("0", 4_000_000), (2000, 2000), (2000, 1))})
    content = zipped(body, {"0": raw})
    (tmp_path / "file").write_bytes(content)
    tracemalloc.start()
    try:
        array = read_torch(tmp_path / "file").arrays["a"]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert array.nbytes == 16_000_000
    assert map_of(array) is not None
    assert peak < 1_000_000


@pytest.mark.parametrize("shift", range(9))
def test_an_archive_need_not_be_aligned(shift: int, tmp_path: Path) -> None:
    members = [Member("f/data.pkl", pickled(STATE)), Member("f/pad", bytes(shift)), Member("f/data/0", NUMBERS)]
    array = read(archive(members, align=1), tmp_path).arrays["weight"]
    np.testing.assert_array_equal(array, VALUES)
    assert array.flags.aligned
    old = legacy(mapping({"weight": tensor(storage(legacy=True)), "x" * shift: b"N"}))
    array = read(old, tmp_path).arrays["weight"]
    np.testing.assert_array_equal(array, VALUES)
    assert array.flags.aligned


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("comment", [b"", b"words", b"PK\5", b"x" * 65_535])
def test_archives_may_have_a_comment_and_64_bit_records(wide: bool, comment: bytes, tmp_path: Path) -> None:
    members = [Member("any name/data.pkl", pickled(STATE)), Member("any name/data/0", NUMBERS)]
    np.testing.assert_array_equal(read(archive(members, None, comment, wide), tmp_path).arrays["weight"], VALUES)


def test_64_bit_sizes_and_offsets(tmp_path: Path) -> None:
    head = Member("f/data.pkl", pickled(STATE))
    offset = archive([head]).index(b"PK\1\2")
    fields = np.array([24, 24, offset], "<u8").tobytes()
    extra = b"\x99\x00\x02\x00ab" + b"\x01\x00\x18\x00" + fields
    far = Member("f/data/0", NUMBERS, size=2**32 - 1, packed=2**32 - 1, offset=2**32 - 1, extra=extra)
    np.testing.assert_array_equal(read(archive([head, far]), tmp_path).arrays["weight"], VALUES)


def test_the_byte_order_is_looked_at(tmp_path: Path) -> None:
    members = [Member("f/data.pkl", pickled(STATE)), Member("f/data/0", NUMBERS), Member("f/byteorder", b"big")]
    with pytest.raises(CheckpointError, match="big-endian"):
        read(archive(members), tmp_path)
    with pytest.raises(CheckpointError, match="big-endian"):
        read(legacy(LEGACY_STATE, system=pickled(mapping({"little_endian": b"\x89"}))), tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        for reader in (read_torch, read_torch_index):
            with pytest.raises(FileNotFoundError, match=f"^there is no file .*{path.name}$"):
                reader(path)


# --- what a pickle may hold ------------------------------------------------------------------------------------------


def test_old_and_new_ways_to_build_a_tensor(tmp_path: Path) -> None:
    shape, stride, plain = many(number(2), number(3)), many(number(3), number(1)), tensor()
    v1 = call(name("torch._utils", "_rebuild_tensor"), storage(), number(0), shape, stride)
    dtype = name("torch", "float32")
    untyped = (
        many(text("storage"), name("torch.storage", "UntypedStorage"), text("1"), text("cuda:0"), number(24)) + b"Q"
    )
    v3 = call(name("torch._utils", "_rebuild_tensor_v3"), untyped, number(0), shape, stride, b"\x89", ORDERED, dtype)
    wrapped = call(name("torch._utils", "_rebuild_parameter"), plain, b"\x88", ORDERED)
    state = call(name("torch._utils", "_rebuild_parameter_with_state"), plain, b"\x88", ORDERED, b"}")
    args = many(storage(), number(0), shape, stride, b"\x89", ORDERED)
    typed = call(
        name("torch._tensor", "_rebuild_from_type_v2"),
        name("torch._utils", "_rebuild_tensor_v2"), name("torch", "Tensor"), args, b"}",
    )  # fmt: skip
    items = {"v1": v1, "v2": plain, "v3": v3, "parameter": wrapped, "state": state, "typed": typed}
    weights = read(zipped(mapping(items), {"0": NUMBERS, "1": NUMBERS}), tmp_path)
    assert list(weights.arrays) == list(items)
    for array in weights.arrays.values():
        np.testing.assert_array_equal(array, VALUES)


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    """Byte strings for names, an OrderedDict made from a list of pairs, storages of torch.cuda."""
    key = b"U\x06weight"
    where = (
        many(b"U\x07storage", name("torch.cuda", "FloatStorage"), b"U\x010", b"U\x06cuda:0", number(6), b"N") + b"Q"
    )
    pairs = listed(listed(key, tensor(where)))
    body = call(name("collections", "OrderedDict"), pairs) + b"}" + text("_metadata") + ORDERED + b"sb"
    weights = read(legacy(body), tmp_path)
    np.testing.assert_array_equal(weights.arrays["weight"], VALUES)
    assert weights.notes == []


def test_a_large_numpy_array_within_the_pickle(tmp_path: Path) -> None:
    values = np.arange(50_000, dtype="<f4") * 0.37
    dtype = call(name("numpy", "dtype"), text("f4"), b"\x89", b"\x88")
    dtype += many(number(3), text("<"), b"N", b"N", b"N", number(-1), number(-1), number(0)) + b"b"
    data = call(name("_codecs", "encode"), text(values.tobytes().decode("latin-1")), text("latin1"))
    empty = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), many(number(0)), b"C\x01b")
    array = empty + many(number(1), many(number(250), number(200)), dtype, b"\x89", data) + b"b"
    raw = b"B" + (200_000).to_bytes(4, "little") + values.tobytes()
    buffer = call(name("numpy._core.numeric", "_frombuffer"), raw, dtype, many(number(50_000)), text("C"))
    arrays = read(zipped(mapping({"text": array, "bytes": buffer})), tmp_path).arrays
    np.testing.assert_array_equal(arrays["text"], values.reshape(250, 200))
    np.testing.assert_array_equal(arrays["bytes"], values)


INERT = {
    "posix path": call(name("pathlib", "PosixPath"), text("/tmp"), text("x")),
    "namespace": name("argparse", "Namespace") + b")\x81}" + text("lr") + number(1) + b"sb",
    "getattr": call(name("__builtin__", "getattr"), name("mmengine.logging", "HistoryBuffer"), text("mean")),
    "config": name("mmengine.config.config", "ConfigDict") + b")\x81" + text("a") + number(1) + b"s",
    "a set": call(name("__builtin__", "set"), listed(number(1), text("a"))),
    "size": call(name("torch", "Size"), listed(number(1))),
    "device": call(name("torch", "device"), text("cuda"), number(0)),
    "dtype": name("torch", "float32"),
    "default": call(name("collections", "defaultdict"), name("__builtin__", "list")) + text("a") + b"]s",
    "odd keys": b"}(" + many(number(1)) + b"N" + number(5) + b"N" + b"NNu",
    "own class": name("__main__", "Config") + b")\x81",
    "long text": text("x" * 10_000),
    "float": b"G" + bytes(8),
}  # fmt: skip


@pytest.mark.parametrize("kind", INERT)
def test_what_else_checkpoints_hold_is_left_out(kind: str, tmp_path: Path) -> None:
    weights = read(zipped(mapping({"weight": tensor(), "extra": INERT[kind]})), tmp_path)
    assert list(weights.arrays) == ["weight"]
    assert weights.notes == ["left out: extra"]
    weights = read(zipped(mapping({"args": INERT[kind], "model": STATE})), tmp_path)
    np.testing.assert_array_equal(weights.arrays["weight"], VALUES)
    assert weights.notes == ["the weights are under 'model'", "left out: args"]


def module(parameters: bytes = b"}", buffers: bytes = b"}", modules: bytes = b"}", hidden: bytes = b"]") -> bytes:
    parts = {"training": b"\x88", "_parameters": parameters, "_buffers": buffers, "_modules": modules}
    state = mapping(parts | {"_non_persistent_buffers_set": call(name("__builtin__", "set"), hidden)})
    return name("torch.nn.modules.container", "Sequential") + b")\x81" + state + b"b"


def test_a_whole_module_is_walked(tmp_path: Path) -> None:
    inner = module(mapping({"weight": tensor(), "bias": b"N"}))
    outer = module(
        mapping({"scale": tensor()}),
        mapping({"kept": tensor(), "hidden": tensor()}),
        mapping({"0": inner, "1": module(), "2": inner}),
        listed(text("hidden")),
    )
    weights = read(zipped(outer), tmp_path)
    assert list(weights.arrays) == ["scale", "kept", "0.weight", "2.weight"]
    assert "torch.nn.modules.container.Sequential" in weights.notes[0]
    weights = read(
        zipped(mapping({"epoch": number(3), "model": module(modules=mapping({"module": outer}))})), tmp_path
    )
    assert list(weights.arrays) == ["scale", "kept", "0.weight", "2.weight"]


# --- seeing through wrappers -----------------------------------------------------------------------------------------

A, B = np.zeros(1), np.ones(1)
UNWRAPPED: list[tuple[str, Any, dict[str, Any], list[str]]] = [
    ("flat", {"a": A, "b": B}, {"a": A, "b": B}, []),
    ("leftovers", {"a": A, "n": 3, "s": "x"}, {"a": A}, ["left out: n, s"]),
    ("state_dict first", {"model": {"a": A}, "state_dict": {"a": B}}, {"a": B},
     ["the weights are under 'state_dict'", "left out: model"]),
    ("a model that is a config", {"model": {"name": "l1"}, "weights": {"a": A}}, {"a": A},
     ["the weights are under 'weights'", "left out: model"]),
    ("twice wrapped", {"state_dict": {"model": {"a": A}, "x": 1}, "epoch": 2}, {"a": A},
     ["the weights are under 'state_dict'.'model'", "left out: epoch, x"]),
    ("average beside", {"model": {"a": A}, "model_ema": {"a": B}}, {"a": A},
     ["the weights are under 'model'", "left out: model_ema"]),
    ("average only", {"model_ema": {"a": B}, "epoch": 1}, {"a": B},
     ["the weights are under 'model_ema'", "they are a moving average (EMA): the file has no others",
      "left out: epoch"]),
    ("average with a counter", {"ema_state_dict": {"module.a": A, "steps": B}}, {"a": A},
     ["the weights are under 'ema_state_dict'", "they are a moving average (EMA): the file has no others",
      "left out: steps", "the prefix 'module.' was dropped from every name"]),
    ("a tensor named like a wrapper", {"model": A, "net": B}, {"model": A, "net": B}, []),
    ("optimizer", {"model": {"a": A}, "optimizer": {"state": {"0": B}}}, {"a": A},
     ["the weights are under 'model'", "left out: optimizer"]),
    ("optimizer beside nested", {"encoder": {"a": A}, "optimizer": {"state": {"0": B}}}, {"encoder.a": A},
     ["left out: optimizer"]),
    ("nested", {"encoder": {"a": A, "deep": {"b": B}}, "n": 1}, {"encoder.a": A, "encoder.deep.b": B},
     ["left out: n"]),
    ("prefixes", {"module._orig_mod.model.a": A, "module._orig_mod.model.b": B}, {"a": A, "b": B},
     [f"the prefix '{p}.' was dropped from every name" for p in ("module", "_orig_mod", "model")]),
    ("a prefix on some", {"module.a": A, "b": B}, {"module.a": A, "b": B}, []),
    ("backbone alone", {"backbone.a": A, "backbone.b": B}, {"a": A, "b": B},
     ["the prefix 'backbone.' was dropped from every name"]),
    ("backbone and head", {"backbone.a": A, "head.fc": B}, {"backbone.a": A, "head.fc": B}, []),
    ("nothing behind the prefix", {"module.": A}, {"module.": A}, []),
    ("modules", {"modules.a": A, "model_a": B}, {"modules.a": A, "model_a": B}, []),
    ("only a counter", {"steps": A}, {"steps": A}, []),
    ("many leftovers", {"a": A} | dict.fromkeys("cdefghijklmn"), {"a": A},
     ["left out: c, d, e, f, g, h, i, j, k, l and 2 more"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "expected", "notes"), [case[1:] for case in UNWRAPPED], ids=[c[0] for c in UNWRAPPED]
)
def test_unwrapping(tree: Any, expected: dict[str, Any], notes: list[str]) -> None:
    arrays, said = unwrap(tree)
    assert list(arrays) == list(expected)
    assert all(arrays[key] is value for key, value in expected.items())
    assert said == notes


@pytest.mark.parametrize("tree", [None, 3, "text", [A], (A,), A, {}, {"a": 1}, {"model": {}}, {"optimizer": {"a": A}}])
def test_what_holds_no_state_dict_is_refused(tree: Any) -> None:
    with pytest.raises(CheckpointError, match=r"^the file holds "):
        unwrap(tree)


def test_a_training_file_with_metadata(tmp_path: Path) -> None:
    args = name("argparse", "Namespace") + b")\x81" + mapping({"model": text("l1"), "x": b"]"}) + b"b"
    body = {"model": STATE, "epoch": number(299), "arch": text("b0"), "args": args, "long": text("x" * 300)}
    weights = read(zipped(mapping(body)), tmp_path)
    assert weights.metadata == {"epoch": "299", "arch": "b0", "args.model": "l1"}


def test_tensors_that_are_left_out_need_not_be_readable(tmp_path: Path) -> None:
    qtensor = call(name("torch._utils", "_rebuild_qtensor"), number(1))
    weights = read(zipped(mapping({"model": STATE, "optimizer": mapping({"a": qtensor})})), tmp_path)
    assert list(weights.arrays) == ["weight"]


# --- shards ----------------------------------------------------------------------------------------------------------


def write_index(path: Path, weight_map: Any) -> Path:
    (path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return path / "pytorch_model.bin.index.json"


def test_shards_are_put_together_in_the_order_of_the_index(tmp_path: Path) -> None:
    (tmp_path / "1.bin").write_bytes(zipped(mapping({"model.b": tensor(), "model.spare": tensor()})))
    (tmp_path / "2.bin").write_bytes(legacy(mapping({"model.a": tensor(storage(legacy=True))})))
    weights = read_torch_index(write_index(tmp_path, {"model.b": "1.bin", "model.a": "2.bin"}))
    assert list(weights.arrays) == ["b", "a"]
    assert weights.container == "PyTorch shards"
    assert weights.notes == [
        "the weights are in 2 shards",
        "left out: 1 tensors of the shards that the index does not name",
        "the prefix 'model.' was dropped from every name",
    ]


def test_the_same_prefix_must_be_in_all_shards(tmp_path: Path) -> None:
    (tmp_path / "1.bin").write_bytes(zipped(mapping({"backbone.a": tensor()})))
    (tmp_path / "2.bin").write_bytes(zipped(mapping({"head.a": tensor()})))
    weights = read_torch_index(write_index(tmp_path, {"backbone.a": "1.bin", "head.a": "2.bin"}))
    assert list(weights.arrays) == ["backbone.a", "head.a"]


@pytest.mark.parametrize(
    "shard", ["../1.bin", "/1.bin", "a/1.bin", "./1.bin", "..", ".", "", "a\\1.bin", "\0", "1\n2"]
)
def test_an_index_may_not_point_outside_its_folder(shard: str, tmp_path: Path) -> None:
    (tmp_path / "1.bin").write_bytes(zipped(STATE))
    with pytest.raises(CheckpointError, match="must be a plain file name"):
        read_torch_index(write_index(tmp_path, {"weight": shard}))


@pytest.mark.parametrize(
    "weight_map", [None, [], {}, {"a": 1}, {"a": ["b"]}, {f"{i}": f"{i}.bin" for i in range(101)}]
)
def test_a_bad_index_is_refused(weight_map: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"index\.json"):
        read_torch_index(write_index(tmp_path, weight_map))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b" " * 2_000_001])
def test_an_index_that_is_no_json_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        read_torch_index(tmp_path / "index.json")


def test_missing_shards_and_tensors_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*1\.bin"):
        read_torch_index(write_index(tmp_path, {"a": "1.bin"}))
    (tmp_path / "1.bin").write_bytes(zipped(STATE))
    absent = {f"w{i}": "1.bin" for i in range(7)}
    with pytest.raises(CheckpointError, match=r"shards lack: w0 \(in 1\.bin\), .* and 2 more$"):
        read_torch_index(write_index(tmp_path, {"weight": "1.bin", **absent}))


def test_a_file_as_large_as_the_largest_model_opens_at_once(tmp_path: Path) -> None:
    items = {f"features.{i}.block.weight": tensor(storage(str(i))) for i in range(1500)}
    content = zipped(mapping(items), {str(i): NUMBERS for i in range(1500)})
    start = time.process_time()
    assert len(read(content, tmp_path).arrays) == 1500
    assert time.process_time() - start < 2  # CPU seconds; 0.1 where nothing else runs
