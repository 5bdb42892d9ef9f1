"""Dumps: each form read and written as it is, what is broken or hostile refused, and the README's own code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import npformer
from npformer import record
from npformer.cli import main
from npformer.parity import Dump, compare, read_dump, write_dump
from npformer.parity.dump import MANIFEST, as_dump, file_name
from tests import tiny
from tests.support import SWIFT

PARITY = Path(npformer.__file__).parent / "parity"
README = (PARITY / "README.md").read_text("utf-8")
RNG = np.random.default_rng(4)
NAMES = ("z.conv", "a:scores", "", "/model/b/Conv_output_0", "file", "x#1", "x", "50%3A", "../out", "é\n", "a//b", ".")


def block(start: str) -> str:
    """The code block of the README that begins with that line's beginning."""
    return next(code for code in re.findall(r"```\w*\n(.*?)```", README, re.DOTALL) if code.startswith(start))


def values() -> dict[str, np.ndarray]:
    """Every dtype and rank, and names that files cannot have."""
    arrays = [
        RNG.standard_normal((2, 3, 5, 4)).astype(np.float32), RNG.standard_normal((2, 7)).astype(np.float16),
        RNG.standard_normal((3, 2)), np.float32(0.5).reshape(()), np.zeros((2, 0, 3), np.float32),
        RNG.standard_normal((4, 3)).astype(np.float32).T, RNG.standard_normal((2, 3)).astype(">f4"),
    ]  # fmt: skip
    return {name: arrays[i % len(arrays)] for i, name in enumerate(NAMES)}


def assert_same(read: Any, expected: Any) -> None:
    assert sorted(read) == sorted(expected)
    for name, value in expected.items():
        assert read[name].dtype.name == value.dtype.name, name
        assert read[name].shape == value.shape, name
        np.testing.assert_array_equal(read[name], value, name)
        assert read.dtypes[name] == value.dtype.name, name


# --- forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["d.npz", "d.safetensors", "d"])
def test_what_is_written_is_read(form: str, tmp_path: Path) -> None:
    given = values()
    write_dump(given, tmp_path / form)
    read = read_dump(tmp_path / form)
    assert_same(read, given)
    assert list(read) == list(NAMES)
    assert read.ordered
    assert len(read) == len(NAMES)
    assert read.source == str(tmp_path / form)
    assert form in repr(read)
    assert f"{len(NAMES)} values" in repr(read)
    assert [path.name for path in tmp_path.iterdir()] == [form]  # nothing partial is left


@pytest.mark.parametrize("form", ["d.safetensors", "d"])
def test_layouts_are_written_and_read(form: str, tmp_path: Path) -> None:
    write_dump(Dump(values(), layouts={"z.conv": "NHWC"}), tmp_path / form)
    assert read_dump(tmp_path / form).layouts == {"z.conv": "NHWC"}


def test_npz_as_numpy_writes_it(tmp_path: Path) -> None:
    given = {"b": values()["z.conv"], "a:x": values()[""], "": values()["z.conv"] + 1}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **given)
        read = read_dump(tmp_path / "a.npz")
        assert_same(read, given)
        assert list(read) == ["b", "a:x", ""]
        assert read.ordered


def test_numpy_reads_the_npz_that_is_written(tmp_path: Path) -> None:
    write_dump({"a.b:scores": np.ones(3), "": np.zeros(2), "x#1": np.ones(1)}, tmp_path / "a.npz")
    assert list(np.load(tmp_path / "a.npz")) == ["a.b:scores", "", "x#1"]


def test_a_folder_of_npy(tmp_path: Path) -> None:
    given = values()
    for name, value in given.items():
        path = tmp_path / file_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, value)
    assert_same(read_dump(tmp_path), given)
    assert not read_dump(tmp_path).ordered
    assert list(tmp_path.parent.glob("out*")) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_file_name_never_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    path = (tmp_path / file_name(name)).resolve()
    assert path.is_relative_to(tmp_path)
    assert path.suffix == ".npy" or not name
    assert not re.search(r"[:\\\n]", file_name(name))


def test_a_folder_is_read_in_natural_order_with_subfolders(tmp_path: Path) -> None:
    for name in ("block10/conv", "block2/conv", "block2/act", "a%3Aprobs", "²1", "10", "9", "folder.npy/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(f"{tmp_path / name}.npy", np.ones(2))
    (tmp_path / "notes.txt").write_text("not a value")
    read = read_dump(tmp_path)
    assert list(read) == ["9", "10", "a:probs", "block2/act", "block2/conv", "block10/conv", "folder.npy/x", "²1"]
    assert not read.ordered


def test_safetensors_of_another_program(tmp_path: Path) -> None:
    save_file({"b": np.ones(2, np.float32), "a": np.zeros((1, 2), np.float16)}, tmp_path / "a.safetensors")
    read = read_dump(tmp_path / "a.safetensors")
    assert sorted(read) == ["a", "b"]
    assert not read.ordered
    for order in ("by size", "[" * 100_000):
        save_file({"b": np.ones(2, np.float32)}, tmp_path / "a.safetensors", {"order": order})
        assert not read_dump(tmp_path / "a.safetensors").ordered


def test_safetensors_of_bfloat16(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    numbers = np.array([0x3F80, 0xC000, 0x7F80], "<u2")
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + numbers.tobytes())
    read = read_dump(tmp_path / "a.safetensors")
    assert read["a"].dtype == np.float32
    assert read["a"].tolist() == [1, -2, np.inf]


def test_a_trace_is_a_dump(tmp_path: Path) -> None:
    trace = record(tiny.model(SWIFT), tiny.pictures())
    trace.save(tmp_path / "t.safetensors")
    for dump in (read_dump(tmp_path / "t.safetensors"), as_dump(trace), as_dump(str(tmp_path / "t.safetensors"))):
        assert list(dump) == list(trace)
        assert dump.ordered
        assert dump.layouts == trace.layouts
        assert_same(dump, dict(trace))


def manifest(folder: Path, *entries: Any, **head: Any) -> Path:
    folder.mkdir(exist_ok=True)
    content = {"format": "npformer-dump", "version": 1, "values": list(entries), **head}
    (folder / MANIFEST).write_text(json.dumps(content))
    return folder


def entry(name: Any = "a", file: Any = "0.bin", dtype: Any = "float32", shape: Any = (2, 3), **more: Any) -> Any:
    return {"name": name, "file": file, "dtype": dtype, "shape": shape, **more}


def test_a_manifest_lists_values_in_order(tmp_path: Path) -> None:
    numbers = RNG.standard_normal(6)
    for dtype, kind in (("float64", "<f8"), ("float32", "<f4"), ("float16", "<f2")):
        (tmp_path / f"{dtype}.bin").write_bytes(numbers.astype(kind).tobytes())
    (tmp_path / "bits.bin").write_bytes(np.array([0x3F80, 0xC049], "<u2").tobytes())
    (tmp_path / "one.bin").write_bytes(np.array([0xC049], "<u2").tobytes())
    (tmp_path / "none.bin").write_bytes(b"")
    (tmp_path / "ignored.npy").write_bytes(b"not listed")
    manifest(
        tmp_path,
        entry("z", "float64.bin", "float64", [6], layout="BD"),
        entry("a", "./float32.bin"),
        entry("", "float16.bin", "float16", [3, 1, 2], layout=None),
        entry("bits", "bits.bin", "bfloat16", [2, 1]),
        entry("one", "one.bin", "bfloat16", []),
        entry("none", "none.bin", "bfloat16", [3, 0]),
    )
    read = read_dump(tmp_path)
    assert list(read) == ["z", "a", "", "bits", "one", "none"]
    assert read.ordered
    assert read.layouts == {"z": "BD"}
    assert list(read.dtypes.values()) == ["float64", "float32", "float16", *["bfloat16"] * 3]
    np.testing.assert_array_equal(read["z"], numbers)
    np.testing.assert_array_equal(read["a"], numbers.astype(np.float32).reshape(2, 3))
    np.testing.assert_array_equal(read[""], numbers.astype(np.float16).reshape(3, 1, 2))
    assert read["bits"].tolist() == [[1.0], [-3.140625]]
    assert (read["bits"].dtype, read["one"].shape, read["none"].shape) == (np.float32, (), (3, 0))
    assert read["one"] == -3.140625


def test_links_within_a_manifests_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real.bin").write_bytes(bytes(24))
    (tmp_path / "0.bin").symlink_to("real.bin")
    (tmp_path / "linked").symlink_to(tmp_path, target_is_directory=True)
    manifest(tmp_path, entry())
    assert read_dump(tmp_path / "linked")["a"].shape == (2, 3)


def test_what_is_no_dump_yet_becomes_one() -> None:
    dump = Dump({"a": np.ones(2)})
    assert as_dump(dump) is dump
    assert as_dump({"a": [1.0, 2.0]})["a"].tolist() == [1, 2]
    assert as_dump({"b": np.ones(1), "a": np.ones(1)}).ordered
    for port in (5, None, [np.ones(2)], np.ones(2)):
        with pytest.raises(TypeError, match=r"^port must be a mapping from name to array or a path, got "):
            as_dump(port)


def test_writing_refuses(tmp_path: Path) -> None:
    for name in ("a.npy", "a.tar.gz"):
        with pytest.raises(ValueError, match=r"^path must end in \.npz, \.safetensors or have no suffix, got "):
            write_dump({"a": np.ones(2)}, tmp_path / name)
    (tmp_path / "d").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        write_dump({"a": np.ones(2)}, tmp_path / "d")
    with pytest.raises(FileNotFoundError):
        write_dump({"a": np.ones(2)}, tmp_path / "missing" / "a.npz")
    with pytest.raises(ValueError, match="no values"):
        write_dump({}, tmp_path / "e.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_what_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.npz").write_bytes(b"old")
    monkeypatch.setattr(np.lib.format, "write_array", fail)
    monkeypatch.setattr(json, "dumps", fail)
    for name in ("a.npz", "a"):
        with pytest.raises(OSError, match="full"):
            write_dump({"a": np.ones(2)}, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert (tmp_path / "a.npz").read_bytes() == b"old"


def fail(*args: Any, **kwargs: Any) -> None:
    raise OSError("the disk is full")


# --- refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [np.arange(3), np.ones(2, bool), np.ones(2, complex), np.array(["a"]), np.array([{}]), np.ones(2, np.longdouble),
     np.ones(2, "V2"), [[1.0], [1.0, 2.0]], ["x"], None],
    ids=["int", "bool", "complex", "text", "object", "longdouble", "bits", "ragged", "texts", "none"],
)  # fmt: skip
def test_only_floating_point_numbers_are_values(array: Any) -> None:
    with pytest.raises(ValueError, match=r"^port: 'a' (holds|cannot be taken as an array: )[^\n]*$"):
        as_dump({"b": np.ones(2), "a": array})


def test_what_cannot_become_an_array_is_told_in_one_line() -> None:
    class Tensor:
        def __array__(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("it lies on\n  another device")

    with pytest.raises(ValueError, match=r"^port: 'a' cannot be taken as an array: it lies on another device$"):
        as_dump({"a": Tensor()})


def test_names_are_texts_without_nul() -> None:
    with pytest.raises(TypeError, match=r"^port: names must be texts, got 1$"):
        as_dump({1: np.ones(2), "1": np.ones(2)})
    with pytest.raises(ValueError, match=r"^port: a name must not hold a NUL character, got 'a\\x00b'$"):
        as_dump({"a\0b": np.ones(2)})
    with pytest.raises(ValueError, match=r"^port holds no values$"):
        as_dump({})


def assert_refused(path: Path, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        read_dump(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + 2 * len(str(path))
    assert path.name in str(caught.value)


def npy(header: dict[str, Any] | str, numbers: bytes = b"") -> bytes:
    text = header if isinstance(header, str) else repr(header)
    return b"\x93NUMPY\x01\x00" + (len(text) + 1).to_bytes(2, "little") + text.encode() + b"\n" + numbers


def header(**changes: Any) -> dict[str, Any]:
    return {"descr": "<f4", "fortran_order": False, "shape": (2,), **changes}


NPY: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello\nworld",
    "pickle": b"\x80\x04\x95\x00\x00.",
    "objects": npy(header(descr="|O"), b"\x80\x04N."),
    "header cut off": b"\x93NUMPY\x01\x00\xff\xff{",
    "numbers cut off": npy(header(shape=(5,)), bytes(19)),
    "huge": npy(header(shape=(10**12,)), bytes(8)),
    "overflowing": npy(header(shape=(2**62, 2**62)), bytes(8)),
    "wrapping round": npy(header(shape=(2**32, 2**32)), bytes(8)),
    "negative": npy(header(shape=(-1, -2)), bytes(8)),
    "not a shape": npy(header(shape="ab"), bytes(8)),
    "too many axes": npy(header(shape=(1,) * 70), bytes(4)),
    "not a dtype": npy(header(descr="whatever"), bytes(8)),
    "not a header": npy("__import__('os').abort()"),
    "deep": npy("(" * 9000),
    "version 9": b"\x93NUMPY\x09\x00\x00\x00",
    "an archive": b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("content", NPY.values(), ids=NPY)
def test_a_broken_npy_is_refused(content: bytes, tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.ones(2))
    (tmp_path / "a.npy").write_bytes(content)
    assert_refused(tmp_path, r"a\.npy is ")


def test_a_folder_with_anything_else_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, r"holds no \.npy file and no manifest\.json$")
    np.save(tmp_path / "a.npy", np.arange(3))
    assert_refused(tmp_path, r"'a' holds int64")
    np.save(tmp_path / "a.npy", np.ones(3))
    np.save(tmp_path / "%61.npy", np.ones(3))
    assert_refused(tmp_path, "holds two values of the name 'a'$")
    (tmp_path / "%61.npy").rename(tmp_path / "b%00.npy")
    assert_refused(tmp_path, "must not hold a NUL")
    (tmp_path / "b%00.npy").unlink()
    (tmp_path / "dangling.npy").symlink_to("nowhere")
    assert_refused(tmp_path, r"dangling\.npy is no file, or leads nowhere$")
    (tmp_path / "dangling.npy").unlink()
    os.mkfifo(tmp_path / "pipe.npy")  # to open it would be to wait for ever
    assert_refused(tmp_path, r"pipe\.npy is no file, or leads nowhere$")


MANIFESTS: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "another format": ((entry(),), {"format": "x"}, "must have format 'npformer-dump', version 1 and a list"),
    "another version": ((entry(),), {"version": 2}, "must have format 'npformer-dump', version 1 and a list"),
    "no list": ((), {"values": {"a": 1}}, "must have format 'npformer-dump', version 1 and a list"),
    "nothing": ((), {}, "holds no values$"),
    "no entry": ((5,), {}, "must give every value a name of its own, got '5'$"),
    "no name": ((entry(None),), {}, "must give every value a name of its own"),
    "a number for a name": ((entry(3),), {}, "must give every value a name of its own"),
    "a name twice": ((entry(), entry()), {}, "must give every value a name of its own"),
    "NUL in a name": ((entry("a\0b"),), {}, "a name must not hold a NUL"),
    "an unknown dtype": ((entry(dtype="int32"),), {}, "dtype of 'a' must be one of float64, .* got 'int32'$"),
    "a list for a dtype": ((entry(dtype=["float32"]),), {}, "dtype of 'a' must be one of"),
    "no shape": ((entry(shape=None),), {}, "shape of 'a' must be a list of whole numbers, got None$"),
    "a fraction": ((entry(shape=[2, 3.0]),), {}, "shape of 'a' must be a list of whole numbers"),
    "a truth": ((entry(shape=[6, True]),), {}, "shape of 'a' must be a list of whole numbers"),
    "negative": ((entry(shape=[-2, -3]),), {}, "shape of 'a' must be a list of whole numbers"),
    "33 axes": ((entry(shape=[1] * 31 + [2, 3]),), {}, "shape of 'a' must be a list of whole numbers"),
    "huge": ((entry(shape=[2**58]),), {}, "must hold 288230376151711744 numbers of float32 for 'a', got 24 bytes$"),
    "huge and empty": ((entry(shape=[0, 10**30], file="n.bin"),), {}, "shape of 'a' must be a list of whole"),
    "too long and empty": ((entry(shape=[2**60, 0], file="n.bin"),), {}, "shape of 'a' must be a list of whole"),
    "one too many": ((entry(shape=[7]),), {}, "must hold 7 numbers of float32 for 'a', got 24 bytes$"),
    "one too few": ((entry(shape=[5]),), {}, "must hold 5 numbers of float32 for 'a', got 24 bytes$"),
    "half the width": ((entry(dtype="float16"),), {}, "must hold 6 numbers of float16 for 'a', got 24 bytes$"),
    "no file": ((entry(file=None),), {}, "file of 'a' must be a file in that folder, got 'None'$"),
    "an absent file": ((entry(file="9.bin"),), {}, "file of 'a' must be a file in that folder, got '9.bin'$"),
    "the folder itself": ((entry(file="."),), {}, "file of 'a' must be a file in that folder"),
    "the way out": ((entry(file="../secret.bin"),), {}, "file of 'a' must be a file in that folder"),
    "a neighbour": ((entry(file="../d2/secret.bin"),), {}, "file of 'a' must be a file in that folder"),
    "absolute": ((entry(file="/SECRET"),), {}, "file of 'a' must be a file in that folder"),
    "a link": ((entry(file="link.bin"),), {}, "file of 'a' must be a file in that folder, got 'link.bin'$"),
    "through a link": ((entry(file="up/secret.bin"),), {}, "file of 'a' must be a file in that folder"),
    "links in a circle": ((entry(file="circle.bin"),), {}, "file of 'a' must be a file in that folder"),
    "NUL in a file": ((entry(file="0.bin\0"),), {}, "file of 'a' must be a file in that folder"),
    "half a character": ((entry(file="\ud800"),), {}, "file of 'a' must be a file in that folder"),
    "a long file": ((entry(file="x" * 5000),), {}, "file of 'a' must be a file in that folder"),
}


@pytest.mark.parametrize(("entries", "head", "sentence"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_broken_manifest_is_refused(
    entries: tuple[Any, ...], head: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(24))
    (tmp_path / "d2").mkdir()
    (tmp_path / "d2" / "secret.bin").write_bytes(bytes(24))
    folder = tmp_path / "d"
    manifest(folder, *({**e, "file": str(secret)} if e == entry(file="/SECRET") else e for e in entries), **head)
    (folder / "0.bin").write_bytes(bytes(24))
    (folder / "n.bin").write_bytes(b"")
    (folder / "link.bin").symlink_to(secret)
    (folder / "up").symlink_to("..", target_is_directory=True)
    (folder / "circle.bin").symlink_to("circle.bin")
    assert_refused(folder, sentence)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"values": ' + b"9" * 9999])
def test_a_manifest_that_is_no_json_object_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    assert_refused(tmp_path, r"manifest\.json (is not valid JSON|must hold a JSON object)")


def test_broken_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    array = {"a": np.ones(2, np.float32), "1": np.ones(2, np.float32)}
    for order in ('["a"]', '["a", "b"]', '["a", "1", "1"]', '["a", 1]', '{"a": 0, "1": 1}', "null"):
        save_file(array, path, {"order": order})
        assert_refused(path, "is damaged: its order does not name the values it holds$")
    for layouts in ("[]", '{"a": 1}', "3"):
        save_file(array, path, {"order": '["a", "1"]', "layouts": layouts})
        assert_refused(path, "is damaged: its layouts must map names to texts$")
    save_file({"a": np.arange(3)}, path)
    assert_refused(path, "'a' holds int64; floating-point numbers are expected$")
    save_file({}, path)
    assert_refused(path, "holds no values$")
    whole = write_dump(array, path) or path.read_bytes()
    for size in (0, 7, 20, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert_refused(path, "safetensors")


def test_broken_npz_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_dump({"a": np.ones(200), "b": np.ones(2)}, path)
    whole = path.read_bytes()
    for size in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert_refused(path, "is ")
    np.savez(path, a=np.array([{}], object))
    assert_refused(path, "Object arrays cannot be loaded")
    np.savez(path, a=np.arange(3))
    assert_refused(path, "'a' holds int64")
    np.savez(path, **{"%61": np.ones(2), "a": np.ones(2)})
    assert_refused(path, "holds two values of the name 'a'$")
    np.savez(path)
    assert_refused(path, "is not an npz file")


def test_what_is_not_there_and_what_is_no_dump(tmp_path: Path) -> None:
    for name in ("a.npz", "a", "a.safetensors", "a\0b"):
        with pytest.raises(FileNotFoundError, match=r"^there is no file or folder "):
            read_dump(tmp_path / name)
    np.save(tmp_path / "a.npy", np.ones(2))
    assert_refused(tmp_path / "a.npy", r"must be a folder, \.npz or \.safetensors, got the suffix '\.npy'$")


# --- large dumps -------------------------------------------------------------------------------------------------


def test_numbers_stay_on_disk(tmp_path: Path) -> None:
    """Of 40 GB of holes nothing is read but what is looked at."""
    shape = (100, 100, 1000, 1000)
    size = 4 * 10**10
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + size)
    raw = manifest(tmp_path / "raw", entry(shape=list(shape)))
    with (raw / "0.bin").open("wb") as file:
        file.truncate(size)
    started = time.process_time()
    for dump in (read_dump(tmp_path), read_dump(raw)):
        assert dump["a"].nbytes == size
        assert dump["a"][99, 99, 999, 999] == 0
    assert time.process_time() - started < 5


@pytest.mark.parametrize("form", ["npy", "raw"])
def test_a_dump_may_have_more_values_than_a_process_may_open_files(form: str, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="needs POSIX")
    values = {f"v{number}": np.full(3, number, np.float32) for number in range(300)}
    if form == "raw":
        write_dump(values, tmp_path / "dump")
    else:
        (tmp_path / "dump").mkdir()
        for name, value in values.items():
            np.save(tmp_path / "dump" / f"{name}.npy", value)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        dump = read_dump(tmp_path / "dump")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list(dump) == list(values)
    assert all(np.array_equal(dump[name], value) for name, value in values.items())


def test_an_npz_of_onnx_names_and_of_nothing_but_nan(tmp_path: Path) -> None:
    """Both as `np.savez` writes them: a zip member "/conv.npy", and 100 MB in a file of 100 kB."""
    values = {f"/stem.{i}/Conv_output_0": np.full((64, 448, 448), np.nan, np.float32) for i in range(2)}
    np.savez_compressed(tmp_path / "a.npz", **values)
    dump = read_dump(tmp_path / "a.npz")
    assert list(dump) == list(values)
    assert all(np.isnan(value).all() and value.shape == (64, 448, 448) for value in dump.values())


# --- the C++ writer ----------------------------------------------------------------------------------------------

CPP = r"""
#include "npformer_dump.hpp"
#include <cstdio>
#include <cstdlib>
#include <limits>

int main() {
    using npformer::Dump;
    const float singles[] = {1.5f, -0.1f, 1e-45f, 3.4e38f, std::numeric_limits<float>::infinity(), -0.0f};
    const double doubles[] = {0.1, -1e300};
    const std::uint16_t half[] = {0x3c00, 0xc248, 0x0001};
    const std::uint16_t brain[] = {0x3f80, 0xc049, 0x7f7f};
    {
        Dump dump("closed/below");
        dump.add("stem.conv", singles, {1, 2, 3, 1}, "NHWC");
        dump.add("quote \" backslash \\ tab \t bell \x07 \xc3\xa9 \xe2\x86\x92 /a/b:c", doubles, {2});
        dump.add_float16("half", half, {3, 1}, "BD");
        dump.add_bfloat16("brain", brain, {3});
        dump.add("", singles, {});
        dump.add("relu", singles, {1});
        dump.add("relu", singles + 1, {1});
        dump.add("relu", singles + 2, {1});
        dump.add("nothing", singles, {2, 0});
        dump.close();
        dump.close();
        try {
            dump.add("late", singles, {1});
            return 1;
        } catch (const std::runtime_error& error) {
            std::puts(error.what());
        }
    }
    Dump("closed/below").add("overwritten", singles, {2});
    try {
        Dump dump("thrown");
        dump.add("before", doubles, {1, 2});
        const float* nothing = nullptr;
        try {
            dump.add("null", nothing, {3});
            return 2;
        } catch (const std::runtime_error& error) {
            std::puts(error.what());
        }
        dump.add("negative", doubles, {-1});
    } catch (const std::runtime_error& error) {
        std::puts(error.what());
    }
    try {
        Dump dump("a-file/dump");
        return 3;
    } catch (const std::runtime_error& error) {
        std::puts(error.what());
    }
    try {
        Dump dump("blocked");
        dump.add("a", singles, {1});
        dump.add("b", singles, {1});
        return 4;
    } catch (const std::runtime_error& error) {
        std::puts(error.what());
    }
    std::fflush(stdout);
    Dump dump("crashed");
    dump.add("a", singles, {1});
    std::_Exit(0);  // as in a crash: no destructor runs
}
"""


def compiled(source: str, folder: Path) -> Path:
    """The program of a C++ source that includes the header."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs the compiler g++")
    (folder / "port.cpp").write_text(source, "utf-8")
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror", f"-I{PARITY}"]
    subprocess.run([compiler, *flags, "port.cpp", "-o", "port"], cwd=folder, check=True)
    return folder / "port"


def test_what_cpp_writes_is_read(tmp_path: Path) -> None:
    program = compiled(CPP.replace('Dump("closed/below").add', 'Dump("again").add'), tmp_path)
    (tmp_path / "a-file").write_text("")
    (tmp_path / "blocked" / "00001.bin").mkdir(parents=True)
    out = subprocess.run([program], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.splitlines()
    assert out[:3] == [
        "the dump is closed: late cannot be added", "the values of null are a null pointer",
        "the shape of negative has a negative side",
    ]  # fmt: skip
    assert out[3].startswith("the folder a-file/dump cannot be used for a dump: ")
    assert out[4:] == ["00001.bin cannot be written into the dump's folder"]
    dump = read_dump(tmp_path / "closed" / "below")
    quoted = 'quote " backslash \\ tab \t bell \x07 é → /a/b:c'
    assert list(dump) == ["stem.conv", quoted, "half", "brain", "", "relu#1", "relu#2", "relu", "nothing"]
    singles = np.array([1.5, -0.1, 1e-45, 3.4e38, np.inf, -0.0], np.float32)
    assert dump["stem.conv"].tobytes() == singles.tobytes()
    assert dump["stem.conv"].shape == (1, 2, 3, 1)
    assert dump[quoted].tolist() == [0.1, -1e300]
    assert dump["half"].tobytes() == np.array([[0x3C00], [0xC248], [1]], np.uint16).tobytes()
    assert dump["half"].dtype == np.float16
    assert dump["brain"].tolist() == [1, -3.140625, 3.3895313892515355e38]
    assert dump[""].shape == ()
    assert [dump[name].item() for name in ("relu#1", "relu#2", "relu")] == singles[:3].tolist()
    assert dump["nothing"].shape == (2, 0)
    assert dump.layouts == {"stem.conv": "NHWC", "half": "BD"}
    assert [dump.dtypes[name] for name in ("stem.conv", quoted, "half", "brain")] == [
        "float32", "float64", "float16", "bfloat16",
    ]  # fmt: skip
    assert list(read_dump(tmp_path / "thrown")) == ["before"]  # by the destructor
    assert not list(tmp_path.rglob("*.partial"))


def test_cpp_takes_sides_and_halves_of_any_type(tmp_path: Path) -> None:
    source = """
    #include "npformer_dump.hpp"
    struct Half { std::uint16_t bits; };
    int main() {
        int batch = 1;
        std::size_t channels = 3;
        const Half half[] = {{0x3c00}, {0xc248}, {0x0001}};
        const std::vector<int> shape = {3, 1};
        npformer::Dump dump("out");
        dump.add_float16("half", half, {batch, channels}, "BD");
        dump.add_bfloat16("brain", half, shape);
    }
    """
    subprocess.run([compiled(source, tmp_path)], cwd=tmp_path, check=True)
    dump = read_dump(tmp_path / "out")
    np.testing.assert_array_equal(dump["half"], np.array([[0x3C00, 0xC248, 0x0001]], np.uint16).view(np.float16))
    bits = np.array([[0x3C000000], [0xC2480000], [0x00010000]], np.uint32)
    np.testing.assert_array_equal(dump["brain"], bits.view(np.float32))
    assert dump.dtypes == {"half": "float16", "brain": "bfloat16"}


def test_cpp_writes_over_an_earlier_dump(tmp_path: Path) -> None:
    program = compiled(CPP, tmp_path)
    (tmp_path / "a-file").write_text("")
    (tmp_path / "blocked" / "00001.bin").mkdir(parents=True)
    manifest(tmp_path / "crashed", entry())
    subprocess.run([program], cwd=tmp_path, check=True, capture_output=True)
    assert list(read_dump(tmp_path / "closed" / "below")) == ["overwritten"]
    assert not (tmp_path / "crashed" / MANIFEST).exists()  # it would name numbers that are not its own


# --- the README --------------------------------------------------------------------------------------------------


def test_the_readmes_cpp_runs(tmp_path: Path) -> None:
    source = block('#include "npformer_dump.hpp"')
    assert len(source.splitlines()) <= 20
    subprocess.run([compiled(source, tmp_path)], cwd=tmp_path, check=True)
    dump = read_dump(tmp_path / "port-dump")
    assert dump["efficientnet.embeddings.convolution"].shape == (1, 112, 112, 32)
    assert dump.layouts == {"efficientnet.embeddings.convolution": "NHWC"}


def test_the_readmes_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Its code makes the files, its command prints what it quotes, its Python says what the comment says."""
    monkeypatch.chdir(tmp_path)
    exec(compile(block("# A model, an input"), "README.md", "exec"), {})
    assert main(block("npformer parity --model").split()[1:]) == 1
    printed, quoted = capsys.readouterr().out.splitlines(), block("different: 1 fault").splitlines()
    assert printed[0].split(";")[0] == quoted[0].split(";")[0]
    assert [masked(line) for line in printed[: len(quoted)]] == [masked(line) for line in quoted]
    assert len(quoted) > 20
    assert "\nwrote out.html" in "\n".join(printed)
    assert Path("out.html").stat().st_size > 10_000
    code = block("import numpy as np\n\nfrom npformer import get_model\nfrom npformer.parity import compare")
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() == code.rsplit("# ", 1)[1].strip()


def masked(line: str) -> str:
    """A line without its numbers and spaces: the last digits are another library's of linear algebra."""
    return " ".join(re.sub(r"-?\d[\d.,]*(e[+-]?\d+)?", "1", line).split())


def test_the_readmes_map_of_names(tmp_path: Path) -> None:
    pytest.importorskip("yaml", reason="needs PyYAML")
    (tmp_path / "names.yaml").write_text(block("# names.yaml"))
    model = npformer.get_model("swiftformer-fashion", pretrained=True)
    x = np.random.default_rng(0).standard_normal((1, 3, 96, 96)).astype(np.float32)
    trace = record(model, x)
    ours = {
        "stem/conv": "swiftformer.patch_embed.patch_embedding.0", "down1/bn": "swiftformer.encoder.network.1.norm",
        "stage2/block0": "swiftformer.encoder.network.2.blocks.0",
        "swiftformer.encoder.network.4.blocks.3.attn": "swiftformer.encoder.network.4.blocks.3.attn",
    }  # fmt: skip
    port = {theirs: trace[name] for theirs, name in ours.items()}
    report = compare(model, x, port, names=tmp_path / "names.yaml")
    assert report.equal
    del ours["swiftformer.encoder.network.4.blocks.3.attn"]
    assert report.names.items() >= {name: theirs for theirs, name in ours.items()}.items()
    assert "swiftformer.encoder.network.4.blocks.3.attn" not in report.names


def test_the_readmes_manifest(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(block('{"format"'))
    (tmp_path / "0.bin").write_bytes(bytes(4 * 112 * 112 * 32))
    assert list(read_dump(tmp_path)) == ["stem.conv"]


def test_the_readmes_two_dumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trace = record(tiny.model(SWIFT), tiny.pictures())
    trace.save("first.safetensors")
    write_dump(trace, "second.safetensors")
    command = block("npformer parity first.safetensors").split()[1:]
    assert main(command) == 0
    write_dump({**trace, list(trace)[9]: trace[list(trace)[9]] + 1}, "second.safetensors")
    assert main(command) == 1


def test_its_links_lead_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#:]+)\)", README) if not target.startswith("http")]
    assert targets
    assert not [target for target in targets if not (PARITY / target).exists()]
