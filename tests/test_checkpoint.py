"""safetensors files: read without copying, written whole or not at all, and refused in one sentence where damaged."""

from __future__ import annotations

import json
import mmap
import stat
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from npformer import checkpoint
from npformer.checkpoint import read_checkpoint, read_metadata, read_tensors, write_checkpoint, write_tensors
from tests.ops.helpers import SETTINGS

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
VALID = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.weight": np.array(-1.5, np.float16),
    "c": np.zeros((0, 4), np.int64),
    "d": np.array([True, False]),
}


def raw(header: Any, data: bytes = b"") -> bytes:
    """A file with that header, valid or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: Any = "F32", shape: Any = (1,), begin: Any = 0, end: Any = 4) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [begin, end]}


def map_of(array: Any) -> mmap.mmap | None:
    """The memory map that an array is a view of, if any."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return array


def assert_refused(path: Path, content: bytes, read: Any = read_tensors) -> str:
    """Reading must fail with one short line that names the file."""
    path.write_bytes(content)
    with pytest.raises(ValueError, match=path.name) as error:
        read(path)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    assert error.value.__cause__ is None
    return message


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_are_read_only_views_of_one_memory_map(dtype: str, tmp_path: Path) -> None:
    values = {"a": np.arange(6).reshape(2, 3).astype(dtype), "b": np.ones(1, dtype)}
    write_tensors(tmp_path / "file", values)
    tensors = read_tensors(tmp_path / "file")
    for name, value in values.items():
        assert tensors[name].dtype == value.dtype
        np.testing.assert_array_equal(tensors[name], value)
        assert not tensors[name].flags.writeable
    assert map_of(tensors["a"]) is map_of(tensors["b"])
    assert isinstance(map_of(tensors["a"]), mmap.mmap)


def test_reading_takes_no_memory_for_the_numbers(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", {"a": np.zeros(4_000_000, np.float32)})
    tracemalloc.start()
    try:
        tensors = read_tensors(tmp_path / "file")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert tensors["a"].nbytes == 16_000_000
    assert peak < 1_000_000


def test_scalars_and_empty_tensors_keep_their_shapes(tmp_path: Path) -> None:
    values = {"s": np.array(2.5), "n": np.array(7), "e": np.zeros((3, 0, 2), np.float32), "z": np.zeros(0, np.int8)}
    write_tensors(tmp_path / "file", values)
    tensors = read_tensors(tmp_path / "file")
    assert {name: (array.shape, array.dtype) for name, array in tensors.items()} == {
        name: (array.shape, array.dtype) for name, array in values.items()
    }
    assert (tensors["s"], tensors["n"]) == (2.5, 7)


@pytest.mark.parametrize("content", [raw({}), raw({"__metadata__": {"k": "v"}}), raw({"__metadata__": None})])
def test_a_file_without_tensors_is_empty(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert read_tensors(tmp_path / "file") == {}


@pytest.mark.parametrize("padding", range(8))
def test_unaligned_data_is_read_all_the_same(padding: int, tmp_path: Path) -> None:
    values = np.array([1.5, -2.25, 1e300])
    header = json.dumps({"b": entry("U8", (1,), 0, 1), "a": entry("F64", (3,), 1, 25)}).encode() + b" " * padding
    (tmp_path / "file").write_bytes(raw(header, b"\x07" + values.tobytes()))
    tensors = read_tensors(tmp_path / "file")
    np.testing.assert_array_equal(tensors["a"], values)
    assert tensors["b"].tolist() == [7]
    assert tensors["a"].flags.aligned


def test_every_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    (tmp_path / "file").write_bytes(raw({"a": entry("BF16", (256, 256), 0, 2**17)}, bits.tobytes()))
    values = read_tensors(tmp_path / "file")["a"]
    assert values.dtype == np.float32
    assert values.shape == (256, 256)
    sign, exponent, fraction = 1 - 2.0 * (bits >> 15), (bits >> 7).astype(int) & 255, (bits & 127) / 128
    normal = exponent > 0  # value = ±2^(e - 127) (1 + f), or ±2^-126 f where e = 0
    truth = sign * np.ldexp(fraction + normal, np.where(normal, exponent, 1) - 127)
    truth[exponent == 255] = np.where(fraction > 0, np.nan, sign * np.inf)[exponent == 255]
    np.testing.assert_array_equal(values.reshape(-1), truth)
    assert np.array_equal(np.signbit(values.reshape(-1)), bits >> 15 == 1)


def test_a_bfloat16_scalar_stays_a_scalar(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(raw({"a": entry("BF16", (), 0, 2)}, b"\x80\x3f"))
    value = read_tensors(tmp_path / "file")["a"]
    assert (value.shape, float(value)) == ((), 1.0)


def test_metadata_is_read_without_the_numbers(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", {"a": np.zeros(3)}, {"format": "pt", "é": "名"})
    assert read_metadata(tmp_path / "file") == {"format": "pt", "é": "名"}
    (tmp_path / "plain").write_bytes(raw({"a": entry()}, b"abcd"))
    assert read_metadata(tmp_path / "plain") == {}


# --- damaged files ---------------------------------------------------------------------------------------------------

DAMAGED = {
    "empty": b"",
    "7 bytes": b"\0" * 7,
    "8 bytes of zero": b"\0" * 8,
    "header longer than the file": struct.pack("<Q", 1000) + b"{}",
    "header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "header of 2^64 - 1 bytes": b"\xff" * 8 + b"{}",
    "a zip file": b"PK\x03\x04" + b"\0" * 100,
    "no JSON": raw(b"not json"),
    "half of a JSON": raw(b'{"a": {"dtype": "F32", "sh'),
    "JSON that is no UTF-8": raw(b'{"\xff\xfe": 1}'),
    "JSON too deep": raw(b'{"a":' * 100_000),
    "list too deep": raw(b"[" * 100_000),
    "a number of 10000 digits": raw(b'{"a": ' + b"9" * 10_000 + b"}"),
    "JSON list": raw([1, 2]),
    "JSON null": raw(None),
    "JSON text": raw("a"),
    "metadata is a list": raw({"__metadata__": ["a"]}),
    "metadata holds a number": raw({"__metadata__": {"a": 1}}),
    "entry is a number": raw({"a": 3}),
    "entry is null": raw({"a": None}),
    "entry is a list": raw({"a": [0, 4]}),
    "entry is empty": raw({"a": {}}),
    "no dtype": raw({"a": {"shape": [1], "data_offsets": [0, 4]}}, b"abcd"),
    "no shape": raw({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, b"abcd"),
    "no offsets": raw({"a": {"dtype": "F32", "shape": [1]}}, b"abcd"),
    "unknown dtype": raw({"a": entry("F7")}, b"abcd"),
    "8-bit floats": raw({"a": entry("F8_E4M3", (4,))}, b"abcd"),
    "dtype is a list": raw({"a": entry(["F32"])}, b"abcd"),
    "dtype is a number": raw({"a": entry(32)}, b"abcd"),
    "dtype is null": raw({"a": entry(None)}, b"abcd"),
    "shape is a number": raw({"a": entry(shape=1)}, b"abcd"),
    "shape is a text": raw({"a": entry(shape="1")}, b"abcd"),
    "shape is null": raw({"a": entry(shape=None)}, b"abcd"),
    "shape holds a text": raw({"a": entry(shape=["1"])}, b"abcd"),
    "shape holds a fraction": raw({"a": entry(shape=[1.0])}, b"abcd"),
    "shape holds a bool": raw({"a": entry(shape=[True])}, b"abcd"),
    "negative shape": raw({"a": entry(shape=[-1])}, b"abcd"),
    "negative shape twice": raw({"a": entry(shape=[-1, -1])}, b"abcd"),
    "65 axes": raw({"a": entry(shape=[1] * 65)}, b"abcd"),
    "ten thousand axes of 2^62": raw({"a": entry(shape=[2**62] * 10_000)}, b"abcd"),
    "shape of 2^80": raw({"a": entry(shape=[2**80])}, b"abcd"),
    "shape of 2^80 by 0": raw({"a": entry(shape=[2**80, 0], end=0)}),
    "shape of 2^40 by 2^40 by 0": raw({"a": entry(shape=[2**40, 2**40, 0], end=0)}),
    "shape that wraps around at 2^64": raw({"a": entry(shape=[2**62, 4], end=0)}),
    "one offset": raw({"a": {**entry(), "data_offsets": [0]}}, b"abcd"),
    "three offsets": raw({"a": {**entry(), "data_offsets": [0, 4, 8]}}, b"abcd"),
    "offsets are a mapping": raw({"a": {**entry(), "data_offsets": {"0": 4}}}, b"abcd"),
    "offsets are texts": raw({"a": entry(begin="0", end="4")}, b"abcd"),
    "offsets are fractions": raw({"a": entry(begin=0.0, end=4.0)}, b"abcd"),
    "offsets are null": raw({"a": entry(begin=None, end=None)}, b"abcd"),
    "offsets are bools": raw({"a": entry("U8", begin=False, end=True)}, b"a"),
    "negative offset": raw({"a": entry(begin=-4, end=0)}, b"abcd"),
    "offsets backwards": raw({"a": entry(begin=4, end=0)}, b"abcd"),
    "offset beyond the end": raw({"a": entry(shape=(2,), end=8)}, b"abcd"),
    "offset of 2^70": raw({"a": entry(end=2**70)}, b"abcd"),
    "infinite offset": raw(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, Infinity]}}', b"abcd"),
    "overlap": raw({"a": entry(end=4), "b": entry(begin=2, end=6)}, b"abcdefgh"),
    "the same bytes twice": raw({"a": entry(), "b": entry()}, b"abcd"),
    "gap": raw({"a": entry(), "b": entry(begin=5, end=9)}, b"abcdefghi"),
    "gap at the front": raw({"a": entry(begin=1, end=5)}, b"abcde"),
    "too few bytes for the shape": raw({"a": entry(shape=(2,))}, b"abcd"),
    "too many bytes for the shape": raw({"a": entry(shape=(1,), end=8)}, b"abcdefgh"),
    "bytes for nothing": raw({"a": entry(shape=(0,))}, b"abcd"),
    "trailing bytes": raw({"a": entry()}, b"abcde"),
    "data without tensors": raw({}, b"abcd"),
    "last byte cut off": raw({"a": entry()}, b"abc"),
    "all data cut off": raw({"a": entry()}),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_refused_in_one_sentence(damage: str, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        assert_refused(tmp_path / "broken.safetensors", DAMAGED[damage])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000 + 30 * len(DAMAGED[damage]), "memory must be bounded by the file, not by what it claims"


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, -30, -1])
def test_a_truncated_file_is_refused(length: int, tmp_path: Path) -> None:
    write_tensors(tmp_path / "whole", VALID)
    assert_refused(tmp_path / "broken", (tmp_path / "whole").read_bytes()[:length])


def test_a_shape_that_lies_is_quoted_with_its_bytes(tmp_path: Path) -> None:
    message = assert_refused(tmp_path / "broken", raw({"w": entry(shape=(2, 3))}, b"abcd"))
    assert message == f"{tmp_path / 'broken'} is damaged: w claims bytes 0 to 4 of 4 for shape (2, 3)"


@pytest.mark.parametrize("read", [read_tensors, read_metadata])
def test_what_is_no_file_is_refused(read: Any, tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"^there is no file .*{path.name}$"):
            read(path)


@pytest.mark.parametrize("damage", ["empty", "no JSON", "JSON list", "metadata is a list", "header of 2^63 bytes"])
def test_metadata_of_a_damaged_file_is_refused(damage: str, tmp_path: Path) -> None:
    assert_refused(tmp_path / "broken", DAMAGED[damage], read_metadata)


def assert_clean(path: Path, content: bytes) -> None:
    """Whatever the bytes, reading succeeds within the file or fails with a ValueError that names it."""
    path.unlink(missing_ok=True)  # never write into a file that is still mapped
    path.write_bytes(content)
    message, tensors = "", {}
    try:
        tensors = read_tensors(path)
    except ValueError as error:
        message = str(error)
    assert not message or path.name in message
    assert "\n" not in message
    assert sum(len(array.tobytes()) for array in tensors.values()) <= 2 * len(content)  # a bfloat16 becomes 4 bytes


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("valid") / "file"
    write_tensors(path, VALID, {"format": "pt"})
    return path.read_bytes()


@settings(SETTINGS, max_examples=400)
@given(data=st.data())
def test_flipped_bytes_give_a_clean_error_or_a_result(
    data: Any, valid: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    header_end = 8 + int.from_bytes(valid[:8], "little")
    content = bytearray(valid)
    flips = st.lists(st.tuples(st.integers(0, header_end - 1), st.integers(0, 255)), min_size=1, max_size=4)
    for position, value in data.draw(flips):
        content[position] = value
    assert_clean(tmp_path_factory.getbasetemp() / "flipped", bytes(content))


@pytest.mark.parametrize("digit", b'0123456789-]}" ')
def test_any_single_character_of_the_header_may_be_wrong(digit: int, valid: bytes, tmp_path: Path) -> None:
    for position in range(8, 8 + int.from_bytes(valid[:8], "little")):
        assert_clean(tmp_path / "changed", valid[:position] + bytes([digit]) + valid[position + 1 :])


JUNK = st.sampled_from(
    [
        None, True, False, -1, 0, 3, 2**31, 2**63, 2**64, -(2**70), 0.5, float("inf"), float("nan"), "", "F32", "é",
        [], [-1], [0], [[0]], [0, None], [2**40, 2**40, 0], [0, 2**70], ["a", 1], {}, {"dtype": "F32"}, {"a": {}},
    ]
)  # fmt: skip
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "U8", "BOOL"]) | JUNK,
        "shape": st.sampled_from([[], [0], [1], [2], [4], [2, 2], [0, 3], [1, 1, 1]]) | JUNK,
        "data_offsets": st.sampled_from([[0, 0], [0, 1], [0, 4], [4, 8], [0, 8], [8, 16]]) | JUNK,
    }
)


@settings(SETTINGS, max_examples=400)
@given(
    header=st.dictionaries(st.sampled_from(["a", "b", "", "__metadata__"]), ENTRIES | JUNK, max_size=3) | JUNK,
    size=st.sampled_from([0, 1, 4, 8, 16]),
)
def test_any_json_gives_a_clean_error_or_a_result(
    header: Any, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert_clean(tmp_path_factory.getbasetemp() / "junk", raw(header, bytes(size)))


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_safetensors_library_reads_what_we_write_and_the_other_way_round(dtype: str, tmp_path: Path) -> None:
    values = {
        "matrix": np.arange(6).reshape(2, 3).astype(dtype),
        "scalar": np.array(1, dtype),
        "empty": np.zeros((0, 2), dtype),
        "deep.name.é": np.arange(24).reshape(2, 3, 2, 2).astype(dtype),
    }
    write_tensors(tmp_path / "ours", values, {"format": "pt"})
    safetensors.numpy.save_file(values, tmp_path / "theirs", {"format": "pt"})
    for read in (safetensors.numpy.load_file, read_tensors):
        for name in ("ours", "theirs"):
            result = read(tmp_path / name)
            assert result.keys() == values.keys()
            for key, value in values.items():
                assert (result[key].dtype, result[key].shape) == (value.dtype, value.shape)
                np.testing.assert_array_equal(result[key], value)
    with safetensors.safe_open(tmp_path / "ours", "np") as file:
        assert file.metadata() == {"format": "pt"} == read_metadata(tmp_path / "theirs")


def test_views_of_any_layout_are_written_as_they_read(tmp_path: Path) -> None:
    base = np.arange(24.0).reshape(2, 3, 4)
    views = {
        "turned": base.T,
        "every other": base[:, ::2],
        "backwards": base[::-1],
        "wide": np.broadcast_to(1.5, (2, 2)),
    }
    write_tensors(tmp_path / "file", views)
    for name, array in read_tensors(tmp_path / "file").items():
        np.testing.assert_array_equal(array, views[name])


def test_a_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_tensors(tmp_path / "file", {"a": np.zeros(3)})
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


def test_a_file_may_be_rewritten_while_it_is_mapped(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", {"a": np.arange(3.0)})
    mapped = read_tensors(tmp_path / "file")
    write_tensors(tmp_path / "file", {"a": mapped["a"] + 1, "b": mapped["a"]})
    assert mapped["a"].tolist() == [0, 1, 2]
    assert read_tensors(tmp_path / "file")["a"].tolist() == [1, 2, 3]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tensors(tmp_path / "file", {"a": np.zeros(3)})
    before = (tmp_path / "file").read_bytes()
    with pytest.raises(OSError, match=r"file cannot be written: .*complex128"):
        write_tensors(tmp_path / "file", {"a": np.zeros(3, complex)})

    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.numpy, "save_file", stop)
    with pytest.raises(KeyboardInterrupt):
        write_tensors(tmp_path / "file", {"a": np.ones(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == before


def test_writing_into_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere to write file into"):
        write_tensors(tmp_path / "nowhere" / "file", {"a": np.zeros(3)})


# --- model directories: one file or shards ---------------------------------------------------------------------------

STATE = {name: np.arange(4, dtype=np.float32) + shift for shift, name in enumerate("abcde")}  # 16 bytes each


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def index_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "model.safetensors.index.json").read_text())


def write_index(directory: Path, weight_map: Any) -> None:
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    ("limit", "shards"), [(1000, 1), (80, 1), (79, 2), (48, 2), (47, 3), (32, 3), (31, 5), (16, 5), (1, 5)]
)
def test_a_checkpoint_is_one_file_or_shards_within_the_limit(limit: int, shards: int, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, STATE, limit)
    names = [f"model-{i:05}-of-{shards:05}.safetensors" for i in range(1, shards + 1)]
    expected = ["model.safetensors"] if shards == 1 else [*names, "model.safetensors.index.json"]
    assert files(tmp_path) == expected
    state = read_checkpoint(tmp_path)
    assert list(state) == list(STATE)
    assert all(np.array_equal(state[name], STATE[name]) for name in STATE)
    if shards > 1:
        index = index_of(tmp_path)
        assert index["metadata"] == {"total_size": 80}
        assert index["weight_map"].keys() == STATE.keys()
        for shard in names:
            held = [name for name, where in index["weight_map"].items() if where == shard]
            assert read_tensors(tmp_path / shard).keys() == set(held)
            assert len(held) == 1 or 16 * len(held) <= limit


@pytest.mark.parametrize("limits", [(1000, 32), (32, 1000), (32, 48), (48, 32), (1000, 1000), (16, 1000)])
def test_what_an_earlier_save_left_is_removed(limits: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "fresh").mkdir()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "config.json").write_text("{}")
    write_checkpoint(tmp_path / "used", {**STATE, "old": np.ones(9)}, limits[0])
    write_checkpoint(tmp_path / "used", STATE, limits[1])
    write_checkpoint(tmp_path / "fresh", STATE, limits[1])
    assert files(tmp_path / "used") == sorted([*files(tmp_path / "fresh"), "config.json"])
    assert read_checkpoint(tmp_path / "used").keys() == STATE.keys()


def test_a_checkpoint_may_be_saved_over_the_one_it_was_read_from(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, STATE, 32)
    for limit in (48, 1000, 16):
        write_checkpoint(tmp_path, read_checkpoint(tmp_path), limit)
    state = read_checkpoint(tmp_path)
    assert all(np.array_equal(state[name], STATE[name]) for name in STATE)


def test_arrays_from_shards_are_memory_maps_too(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, STATE, 32)
    assert all(map_of(array) is not None for array in read_checkpoint(tmp_path).values())


def test_one_file_wins_over_an_index(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, STATE, 32)
    write_tensors(tmp_path / "model.safetensors", {"only": np.zeros(1)})
    assert list(read_checkpoint(tmp_path)) == ["only"]


def test_a_directory_without_weights_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"holds neither model\.safetensors nor model\.safetensors\.index\.json"
    ):
        read_checkpoint(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, STATE, 32)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*model-00002-of-00003\.safetensors"):
        read_checkpoint(tmp_path)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, STATE, 32)
    (tmp_path / "model-00002-of-00003.safetensors").write_bytes(b"{}")
    with pytest.raises(ValueError, match=r"model-00002-of-00003\.safetensors is not a safetensors file"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/model.safetensors", "sub/model.safetensors", "./model.safetensors", "../../x"]
)
def test_an_index_may_not_point_outside_its_folder(shard: str, tmp_path: Path) -> None:
    write_tensors(tmp_path / "model.safetensors", {"a": np.zeros(1)})
    (tmp_path / "model" / "sub").mkdir(parents=True)
    write_tensors(tmp_path / "model" / "sub" / "model.safetensors", {"a": np.zeros(1)})
    write_index(tmp_path / "model", {"a": shard})
    with pytest.raises(ValueError, match="must be a plain file name"):
        read_checkpoint(tmp_path / "model")


@pytest.mark.parametrize("shard", ["", ".", "..", "\0"])
def test_an_index_that_names_no_file_is_refused(shard: str, tmp_path: Path) -> None:
    write_index(tmp_path, {"a": shard})
    with pytest.raises((FileNotFoundError, ValueError)):
        read_checkpoint(tmp_path)


def test_tensors_that_an_index_promises_in_vain_are_all_listed(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, STATE, 48)
    shard = "model-00001-of-00002.safetensors"
    write_index(tmp_path, {**index_of(tmp_path)["weight_map"], "x": shard, "y": shard})
    with pytest.raises(ValueError, match=rf"lack: x \(in {shard}\), y \(in {shard}\)$"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "null", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": ["b"]}}'],
)
def test_a_damaged_index_is_refused_by_name(content: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json") as error:
        read_checkpoint(tmp_path)
    assert "\n" not in str(error.value)


def test_the_package_exports_what_it_says() -> None:
    assert all(callable(getattr(checkpoint, name)) for name in checkpoint.__all__)
