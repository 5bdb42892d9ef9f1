"""npz files: what np.savez wrote reads back; damaged and hostile ones are refused in one sentence."""

from __future__ import annotations

import io
import pickle
import random
import struct
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer.checkpoint.npz_file import read_npz
from npformer.checkpoint.weights import CheckpointError
from tests.sweep import sweep

FIXTURES = Path(__file__).parents[1] / "fixtures"
A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1.5, -2])


def save(path: Path, compressed: bool = False, **arrays: Any) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def npy(array: Any, version: tuple[int, int] | None = None, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, about new versions of its format
        np.lib.format.write_array(buffer, np.asanyarray(array), version, allow_pickle)
    return buffer.getvalue()


def header(text: str, data: bytes = b"", version: int = 1) -> bytes:
    """A member with that header, valid or not."""
    raw = text.encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(raw)) + raw + data


def claim(shape: str, data: bytes = b"", descr: str = "'<f4'") -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n", data)


def archive(path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as file:
        warnings.simplefilter("ignore")  # zipfile's, about members of one name
        for name, content in members:
            file.writestr(name, content)
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_read_back(compressed: bool, tmp_path: Path) -> None:
    arrays = {
        "a.weight": A, "turned": A.T, "scalar": np.float64(2.5), "none": np.zeros((0, 3), np.int64), "é/b": B,
        "half": B.astype("f2"), "yes": np.array([True, False]), "big": B.astype(">f8"), "u": np.arange(3, dtype="u1"),
    }  # fmt: skip
    weights = read_npz(save(tmp_path / "file.npz", compressed, **arrays))
    assert weights.container == "npz"
    assert list(weights.arrays) == list(arrays)
    for name, array in arrays.items():
        value = weights.arrays[name]
        assert value.dtype == np.asarray(array).dtype.newbyteorder("=")
        assert value.dtype.isnative
        assert value.shape == np.shape(array)
        np.testing.assert_array_equal(value, array)


@pytest.mark.parametrize("name", ["keras-efficientnet", "tf-efficientformer", "tf-swiftformer"])
def test_recorded_files_read_as_numpy_reads_them(name: str) -> None:
    arrays = read_npz(FIXTURES / f"{name}.npz").arrays
    with np.load(FIXTURES / f"{name}.npz") as expected:
        assert list(arrays) == expected.files
        for key in expected.files:
            np.testing.assert_array_equal(arrays[key], expected[key], strict=True)


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_both_versions_for_numbers_are_read(version: tuple[int, int], tmp_path: Path) -> None:
    arrays = read_npz(archive(tmp_path / "file.npz", [("a.npy", npy(A, version))])).arrays
    np.testing.assert_array_equal(arrays["a"], A)


def test_what_is_no_file_is_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.npz", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"^there is no file .*{path.name}$"):
            read_npz(path)


def assert_refused(path: Path, match: str | None = None) -> None:
    start = time.process_time()
    with pytest.raises(CheckpointError, match=match) as error:
        read_npz(path)
    message = str(error.value)
    assert time.process_time() - start < 5  # CPU seconds; 0.1 where nothing else runs
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < 500 + len(str(path))
    assert error.value.__cause__ is None


class Spy:
    """An object whose unpickling would leave a trace."""

    ran = False

    def __reduce__(self) -> Any:
        return setattr, (Spy, "ran", True)


def one(content: bytes) -> Callable[[], list[tuple[str, bytes]]]:
    return lambda: [("a.npy", content)]


HOSTILE: dict[str, tuple[Callable[[], list[tuple[str, bytes]]], str]] = {
    "an object": (one(npy(np.array([Spy()], object), allow_pickle=True)), "an array of numbers"),
    "an object that claims to be a number": (one(claim("(3,)") + pickle.dumps(Spy())), "not just its numbers"),
    "a bare pickle": (one(pickle.dumps(Spy())), "damaged"),
    "texts": (one(npy(np.array(["a", "b"]))), "an array of numbers"),
    "records": (one(npy(np.zeros(2, "f4, i4"))), "an array of numbers"),
    "named in another alphabet": (one(npy(np.zeros(2, [("é", "f4")]), (3, 0))), "version"),
    "complex": (one(npy(np.zeros(2, complex))), "an array of numbers"),
    "void": (one(npy(np.zeros(2, "V2"))), "an array of numbers"),
    "dates": (one(npy(np.zeros(2, "M8[s]"))), "an array of numbers"),
    "claims too much": (one(claim("(1000000000000,)", bytes(8))), "not just its numbers"),
    "claims 2^63": (one(claim("(4294967296, 4294967296)", bytes(8))), "impossible shape"),
    "claims 2^100 of nothing": (one(claim(f"({2**100}, 0)")), "impossible shape"),
    "claims too little": (one(claim("(1,)", bytes(8))), "not just its numbers"),
    "negative side": (one(claim("(-1, -2)", bytes(8))), "impossible shape"),
    "fractional side": (one(claim("(1.5,)", bytes(8))), "damaged"),
    "too many axes": (one(claim(f"({'1, ' * 100})", bytes(4))), "impossible shape"),
    "code in the header": (one(header("__import__('os').system('x')")), "damaged"),
    "a header without end": (one(header("(" * 60_000)), "damaged"),
    "a long header": (one(claim("(1,)" + " " * 60_000, bytes(4))), "damaged"),
    "a header that claims to be 4 GB": (one(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"), "damaged"),
    "no magic": (one(b"numbers, trust me"), "damaged"),
    "an unknown version": (one(b"\x93NUMPY\x09\x00"), "version"),
    "nothing in a member": (one(b""), "damaged"),
    "a bomb": (one(claim("(20000000,)", bytes(80_000_000))), "claims more"),
    "bombs one by one": (
        lambda: [(f"{i}.npy", claim("(5000000,)", bytes(20_000_000))) for i in range(4)], "claims more"),
    "two of one name": (lambda: [("a.npy", npy(A)), ("a.npy", npy(B))], "two members of one name"),
    "a way out": (lambda: [("../a.npy", npy(A))], "impossible name"),
    "a way out inside": (lambda: [("a/../../b.npy", npy(A))], "impossible name"),
    "from the root": (lambda: [("/etc/a.npy", npy(A))], "impossible name"),
    "Windows' way out": (lambda: [("..\\a.npy", npy(A))], "impossible name"),
    "two lines": (lambda: [("a\nb.npy", npy(A))], "impossible name"),
    "only a suffix": (lambda: [(".npy", npy(A))], "not NumPy's"),
    "dots": (lambda: [("a/...npy", npy(A))], "not NumPy's"),
    "a folder": (lambda: [("a.npy/", b"")], "not NumPy's"),
    "something else beside": (lambda: [("a.npy", npy(A)), ("run.py", b"")], "not NumPy's"),
    "PyTorch's": (lambda: [("archive/data.pkl", b"\x80\x02}.")], "not NumPy's"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(case: str, tmp_path: Path) -> None:
    members, match = HOSTILE[case]
    assert_refused(archive(tmp_path / "file.npz", members()), match)
    assert not Spy.ran


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(compression: int, tmp_path: Path) -> None:
    assert_refused(archive(tmp_path / "file.npz", [("a.npy", npy(A))], compression), "an unusual way")


def test_sizes_in_the_directory_that_lie_are_refused(tmp_path: Path) -> None:
    content = bytearray(save(tmp_path / "file.npz", a=A).read_bytes())
    at = content.index(b"PK\x01\x02")
    for field, value, match in [
        (24, 2**31, "claims more"), (24, 1, "damaged"), (24, 2000, "damaged"), (20, 5, "damaged"), (8, 1, "encrypted")
    ]:  # fmt: skip
        damaged = content.copy()
        if field > 8:
            damaged[at + field : at + field + 4] = struct.pack("<I", value)
        else:
            damaged[at + field] |= value
        (tmp_path / "damaged.npz").write_bytes(damaged)
        assert_refused(tmp_path / "damaged.npz", match)


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    content = bytearray(save(tmp_path / "file.npz", a=A).read_bytes())
    content[content.index(A.tobytes()) + 2] ^= 1
    (tmp_path / "file.npz").write_bytes(content)
    assert_refused(tmp_path / "file.npz", "damaged: .*CRC")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY\x01\x00", bytes(100), b"PK\x05\x06" + bytes(18)])
def test_other_files_are_refused_by_their_first_bytes(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.npz").write_bytes(content)
    assert_refused(tmp_path / "file.npz", "is not an npz file: it begins with b")


def test_truncated_files_are_refused_wherever_they_end(tmp_path: Path) -> None:
    content = save(tmp_path / "file.npz", a=A, b=B).read_bytes()
    for length in range(len(content)):
        (tmp_path / "cut.npz").write_bytes(content[:length])
        assert_refused(tmp_path / "cut.npz")


@pytest.mark.parametrize("rounds", sweep([600, 30_000], [600]))
@pytest.mark.parametrize("compressed", [False, True])
def test_mutated_files_are_refused_or_read(compressed: bool, rounds: int, tmp_path: Path) -> None:
    content = save(tmp_path / "file.npz", compressed, a=A, b=B, c=np.zeros((4, 0))).read_bytes()
    generator = random.Random(compressed)
    path = tmp_path / "mutated.npz"
    messages: list[str] = []
    for _ in range(rounds):
        data = bytearray(content)
        for _ in range(generator.choice([1, 1, 2, 8])):
            at = generator.randrange(len(data))
            data[at : at + 4] = generator.choice([bytes(4), b"\xff" * 4, generator.randbytes(4), data[:4]])
        path.write_bytes(data)
        try:
            read_npz(path)
        except CheckpointError as error:
            messages.append(str(error))
    assert all(message.startswith(str(path)) and "\n" not in message for message in messages)
    assert rounds // 6 < len(messages) < rounds
