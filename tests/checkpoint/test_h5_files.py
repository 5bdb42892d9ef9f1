"""HDF5 and Keras archives: recorded files read back exactly; damaged and hostile ones are refused in one sentence."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer.checkpoint.h5_file import read_h5
from npformer.checkpoint.weights import CheckpointError
from tests.sweep import sweep

h5py = pytest.importorskip("h5py", reason="h5py, the extra h5, is not installed")

FIXTURES = Path(__file__).parents[1] / "fixtures"
RECORDED = {
    "keras2-weights.h5": "keras-efficientnet",
    "keras2-model.h5": "keras-efficientnet",
    "keras2.weights.h5": "keras-efficientnet",
    "keras2.keras": "keras-efficientnet",
    "keras3-model.h5": "keras-efficientnet",
    "keras3.weights.h5": "keras-efficientnet",
    "keras3.keras": "keras-efficientnet",
    "tf-efficientformer/tf_model.h5": "tf-efficientformer",
    "tf-swiftformer/tf_model.h5": "tf-swiftformer",
}
# Only here are layers' own names lost: numbers are all that this file has of them.
COUNTED = {"conv2d": ("kernel", "bias"), "batch_normalization": ("gamma",), "depthwise_conv2d": ("kernel",)}


def recorded(name: str) -> dict[str, np.ndarray]:
    with np.load(FIXTURES / f"{name}.npz") as file:
        return {key.removeprefix("weights/"): file[key] for key in file.files if key.startswith("weights/")}


def counted(expected: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays, the layers called by their kind and number."""
    names: dict[str, str] = {}
    count = dict.fromkeys(COUNTED, 0)
    for layer in dict.fromkeys(key.split("/")[0] for key in expected):
        kind = "batch_normalization" if layer.endswith("_bn") else "conv2d"
        kind = "depthwise_conv2d" if layer.endswith("_dwconv") else kind
        names[layer] = {"predictions": "dense", "normalization": "normalization"}.get(layer, "")
        if not names[layer]:
            names[layer] = f"{kind}_{count[kind]}" if count[kind] else kind
            count[kind] += 1
    return {f"{names[key.split('/')[0]]}/{key.split('/')[1]}": array for key, array in expected.items()}


def plain(name: str) -> str:
    return name.removesuffix(":0").replace("depthwise_kernel", "kernel")


# --- what Keras and transformers wrote -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_files_read_back_exactly(name: str) -> None:
    weights = read_h5(FIXTURES / name)
    expected = recorded(RECORDED[name])
    if name == "keras2.weights.h5":
        expected = counted(expected)
    arrays = {plain(key): array for key, array in weights.arrays.items()}
    assert len(arrays) == len(weights.arrays)
    assert arrays.keys() == {plain(key) for key in expected}
    for key, array in expected.items():
        assert arrays[plain(key)].dtype == array.dtype, key
        np.testing.assert_array_equal(arrays[plain(key)], array)
    assert weights.container == ("Keras archive" if name.endswith(".keras") else "HDF5")
    assert weights.notes == []


def test_names_are_the_file_s_own() -> None:
    names = {name: list(read_h5(FIXTURES / name).arrays) for name in RECORDED}
    assert "block1a_dwconv/depthwise_kernel:0" in names["keras2-weights.h5"]
    assert "block2b_se_reduce/bias:0" in names["keras2-model.h5"]
    for name in ("keras3-model.h5", "keras3.weights.h5", "keras3.keras", "keras2.keras"):
        assert {"block1a_dwconv/kernel", "top_bn/moving_variance", "predictions/bias"} <= set(names[name])
    model = "tf_efficient_former_for_image_classification_with_teacher"
    block = f"{model}/efficientformer/encoder/last_stage/meta3D_layers/blocks.0"
    assert f"{block}/token_mixer/attention_bias_idxs:0" in names["tf-efficientformer/tf_model.h5"]
    block = "tf_swift_former_for_image_classification/swiftformer/encoder/network_._2/blocks_._1"
    assert f"{block}/attn/w_g:0" in names["tf-swiftformer/tf_model.h5"]


def test_metadata_says_who_wrote_the_file_and_what_the_model_is() -> None:
    for name in ("keras2-model.h5", "keras3-model.h5", "keras2.keras", "keras3.keras"):
        metadata = read_h5(FIXTURES / name).metadata
        assert metadata["keras_version"].startswith(name.removeprefix("keras")[0])
        assert json.loads(metadata["model_config"])["class_name"] == "Functional"
    assert read_h5(FIXTURES / "tf-swiftformer/tf_model.h5").metadata["backend"] == "tensorflow"


# --- layouts in the small --------------------------------------------------------------------------------------------

A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1.5, -2, 3])


def write_old(file: Any, **layers: dict[str, Any]) -> None:
    """Keras 2: `conv={"conv/kernel:0": array}`."""
    file.attrs["layer_names"] = [name.encode() for name in layers]
    for layer, arrays in layers.items():
        group = file.create_group(layer)
        group.attrs["weight_names"] = [name.encode() for name in arrays] or np.zeros(0, "S1")
        for name, array in arrays.items():
            group[name] = array


def write_new(file: Any, **layers: list[Any]) -> None:
    """Keras 3: `dense=[kernel, bias]`, the group's name and the layer's own being the same."""
    for layer, arrays in layers.items():
        group = file.create_group(f"layers/{layer}/vars")
        group.attrs["name"] = f"my_{layer}"
        for i, array in enumerate(arrays):
            group[str(i)] = array


def write(path: Path, fill: Callable[[Any], None], **options: Any) -> Path:
    path.unlink(missing_ok=True)
    with h5py.File(path, "w", **options) as file:
        fill(file)
    return path


def valid_old(file: Any) -> None:
    write_old(file, conv={"conv/kernel:0": A, "conv/bias:0": B}, pool={}, dense={"dense/kernel:0": A.T})


def valid_new(file: Any) -> None:
    write_new(file, conv2d=[np.ones((3, 3, 2, 4), np.float32), np.ones(4)], pool=[], dense=[A, B])


def read_back(tmp_path: Path, fill: Callable[[Any], None], **options: Any) -> dict[str, np.ndarray]:
    return read_h5(write(tmp_path / "file.h5", fill, **options)).arrays


@pytest.mark.parametrize("libver", ["earliest", "latest", ("v108", "v110")])
@pytest.mark.parametrize("fill", [valid_old, valid_new])
def test_old_and_new_versions_of_the_format_are_read(fill: Any, libver: Any, tmp_path: Path) -> None:
    names = set(read_back(tmp_path, fill, libver=libver))
    old = {"conv/kernel:0", "conv/bias:0", "dense/kernel:0"}
    new = {"my_conv2d/kernel", "my_conv2d/bias", "my_dense/kernel", "my_dense/bias"}
    assert names == (old if fill is valid_old else new)


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", ">f4", ">i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"])
def test_numbers_keep_their_type_in_native_order(dtype: str, tmp_path: Path) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    value = read_back(tmp_path, lambda file: write_old(file, a={"a/x:0": array}))["a/x:0"]
    assert value.dtype == np.dtype(dtype).newbyteorder("=")
    assert value.dtype.isnative
    np.testing.assert_array_equal(value, array)


def test_scalars_and_empty_arrays_keep_their_shapes(tmp_path: Path) -> None:
    values = {"a/s:0": np.float32(2.5), "a/e:0": np.zeros((0, 3), np.float32), "a/n:0": np.int64(7)}
    arrays = read_back(tmp_path, lambda file: write_old(file, a=values))
    assert {name: array.shape for name, array in arrays.items()} == {"a/s:0": (), "a/e:0": (0, 3), "a/n:0": ()}
    assert (arrays["a/s:0"], arrays["a/n:0"]) == (2.5, 7)


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        write_new(file, dense=[])
        bits = np.array([[0x3F80, 0xC000], [0x7F80, 0x0001]], np.uint16)
        file["layers/dense/vars"].create_dataset("0", data=bits.view("V2"))
        file["layers/dense/vars/0"].attrs["dtype"] = "bfloat16"

    value = read_back(tmp_path, fill)["my_dense/kernel"]
    assert value.dtype == np.float32
    assert value.tolist() == [[1, -2], [np.inf, 2.0**-133]]


def test_shapes_name_the_variables(tmp_path: Path) -> None:
    kernel, vector, four = np.ones((1, 1, 2, 4)), np.ones(4), [np.full(4, i) for i in range(4)]
    arrays = read_back(
        tmp_path,
        lambda file: write_new(
            file, conv=[kernel, vector], bare=[kernel], dense=[A, B], norm=four, layer=[vector, vector],
            pictures=[vector, vector, 3], odd=[vector, vector, vector], alone=[vector],
        ),
    )  # fmt: skip
    names: dict[str, list[str]] = {}
    for name in arrays:
        names.setdefault(name.split("/")[0].removeprefix("my_"), []).append(name.split("/")[1])
    assert names["conv"] == names["dense"] == ["kernel", "bias"]
    assert names["bare"] == ["kernel"]
    assert names["norm"] == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert [arrays[f"my_norm/{name}"][0] for name in names["norm"]] == [0, 1, 2, 3]
    assert names["layer"] == ["gamma", "beta"]
    assert names["pictures"] == ["mean", "variance", "count"]
    assert names["odd"] == ["0", "1", "2"]
    assert names["alone"] == ["0"]


def test_texts_are_found_wherever_the_header_goes_on(tmp_path: Path) -> None:
    for libver in ("earliest", "latest"):

        def fill(file: Any) -> None:
            valid_new(file)
            held = file["layers/dense/vars"].attrs
            for i in range(6):  # more than fits the header's first part
                held[f"other{i}"] = np.zeros(40)
                file["layers/pool/vars"].attrs[f"other{i}"] = "text"
            del held["name"], held["other2"]
            held["name"] = "späte Schicht"

        assert "späte Schicht/kernel" in read_back(tmp_path, fill, libver=libver)


def test_more_than_ten_variables_stay_in_order(tmp_path: Path) -> None:
    values = read_back(tmp_path, lambda file: write_new(file, many=[np.full(2, i) for i in range(12)]))
    assert [array[0] for array in values.values()] == list(range(12))


def test_without_names_groups_name_the_layers(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        file["layers/conv2d_12/vars/0"] = np.ones((3, 3, 1, 2))
        file["_layer_checkpoint_dependencies/stem_bn/vars/0"] = A
        file["head/vars/kernel"] = A

    assert set(read_back(tmp_path, fill)) == {"conv2d_12/kernel", "stem_bn/kernel", "head/kernel"}


def test_a_model_inside_a_model_goes_before(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        write_new(file, dense=[A])
        group = file.create_group("layers/functional/layers/conv2d/vars")
        group["0"] = np.ones((1, 1, 2, 2))
        group.attrs["name"] = "stem_conv"
        file.create_group("layers/functional/vars").attrs["name"] = "efficientnetb0"

    assert set(read_back(tmp_path, fill)) == {"my_dense/kernel", "efficientnetb0/stem_conv/kernel"}


def test_a_layer_s_name_may_have_slashes_and_be_inside_another_s(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        write_old(file, **{"a": {"a/k:0": A}, "a/b": {"a/b/k:0": B}, "c/d": {"c/d/k:0": A}, "bare": {"k": B}})
        del file["a/a"], file["a"].attrs["weight_names"]
        file["a"].attrs["weight_names"] = [b"a/k:0"]
        file["a"]["a/k:0"] = A

    assert set(read_back(tmp_path, fill)) == {"a/k:0", "a/b/k:0", "c/d/k:0", "bare/k"}


def test_long_lists_of_names_are_spread_over_attributes(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        valid_old(file)
        names = file.attrs["layer_names"]
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:2], names[2:]

    assert len(read_back(tmp_path, fill)) == 3


def test_what_is_no_weight_is_left_out_and_said(tmp_path: Path) -> None:
    def old(file: Any) -> None:
        valid_old(file.create_group("model_weights"))
        file["optimizer_weights/adam/m:0"] = A
        file["model_weights"].create_group("top_level_model_weights").attrs["weight_names"] = np.zeros(0, "S1")

    def new(file: Any) -> None:
        valid_new(file)
        file["optimizer/vars/0"] = np.int64(3)
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)

    weights = read_h5(write(tmp_path / "old.h5", old))
    assert len(weights.arrays) == 3
    assert weights.notes == ["left out: optimizer_weights"]
    weights = read_h5(write(tmp_path / "new.h5", new))
    assert len(weights.arrays) == 4
    assert sorted(weights.notes) == ["left out: dropout/seed_generator", "left out: optimizer"]


@pytest.mark.parametrize(
    "options",
    [{"chunks": (10, 7)}, {"compression": "gzip"}, {"compression": "gzip", "shuffle": True, "fletcher32": True},
     {"shuffle": True}, {"fletcher32": True}],
)  # fmt: skip
def test_ordinary_chunks_and_compression_are_read(options: dict[str, Any], tmp_path: Path) -> None:
    zeros, noise = np.zeros((100, 45), np.float32), np.random.default_rng(0).standard_normal((61, 30))

    def fill(file: Any) -> None:
        write_old(file, a={}, b={})
        file["a"].attrs["weight_names"] = [b"a/x:0"]
        file["b"].attrs["weight_names"] = [b"b/x:0"]
        file["a"].create_dataset("a/x:0", data=zeros, **options)
        file["b"].create_dataset("b/x:0", data=noise, **options)

    arrays = read_back(tmp_path, fill)
    np.testing.assert_array_equal(arrays["a/x:0"], zeros)
    np.testing.assert_array_equal(arrays["b/x:0"], noise)


def test_without_h5py_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'keras3\.keras, h5py must be installed: pip install "npformer\[h5\]"$'):
        read_h5(FIXTURES / "keras3.keras")


# --- refusals --------------------------------------------------------------------------------------------------------


def assert_refused(path: Path, match: str | None = None) -> str:
    start = time.process_time()
    with pytest.raises(CheckpointError, match=match) as error:
        read_h5(path)
    message = str(error.value)
    assert time.process_time() - start < 5  # CPU seconds; 0.1 where nothing else runs
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < 500 + len(str(path))
    assert error.value.__cause__ is None
    return message


def swap(key: str, make: Callable[[Any, str], Any]) -> Callable[[Any], None]:
    """A valid file in which one thing is something else."""

    def fill(file: Any) -> None:
        valid_old(file)
        del file[key]
        group, name = key.rsplit("/", 1) if "/" in key else ("/", key)
        make(file[group], name)

    return fill


def swapped_dataset(**options: Any) -> Callable[[Any], None]:
    return swap("conv/conv/bias:0", lambda group, name: group.create_dataset(name, **options))


def virtual(group: Any, name: str) -> None:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("neighbour.h5", "x", (3,))
    group.create_virtual_dataset(name, layout)


def set_link(target: Any) -> Callable[[Any, str], None]:
    def make(group: Any, name: str) -> None:
        group[name] = target

    return make


def hard_link(key: str) -> Callable[[Any, str], None]:
    def make(group: Any, name: str) -> None:
        group[name] = group.file[key]

    return make


def raw_chunk(filters: Callable[[Any], None], content: bytes, mask: int = 0) -> Callable[[Any, str], None]:
    """A dataset of 16 bytes in one chunk, whose stored bytes are these."""

    def make(group: Any, name: str) -> None:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((2,))
        filters(plist)
        space = h5py.h5s.create_simple((2,))
        held = h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F64LE, space, plist)
        held.write_direct_chunk((0,), content, mask)

    return make


def twice_deflated(plist: Any) -> None:
    plist.set_deflate(9)
    plist.set_deflate(9)


def deflated(plist: Any) -> None:
    plist.set_deflate(9)


def attributes(*, drop: tuple[str, str] = ("", ""), value: Any = None) -> Callable[[Any], None]:
    def fill(file: Any) -> None:
        valid_old(file)
        where, name = drop
        del file[where].attrs[name]
        if value is not None:
            file[where].attrs[name] = value

    return fill


def deep(file: Any) -> None:
    write_old(file, a={})
    file["a"].attrs["weight_names"] = [b"x"]
    file["a"]["/".join("g" * 300)] = B


def crowd(file: Any) -> None:
    """Each group holds the next one twice: 2^40 ways down."""
    valid_new(file)
    for i in range(40):
        file.create_group(f"g{i}")
    for i in range(39):
        file[f"g{i}/a"] = file[f"g{i}/b"] = file[f"g{i + 1}"]


def two_of_one_name(file: Any) -> None:
    valid_new(file)
    file["layers/dense/vars"].attrs["name"] = "same"
    file["layers/conv2d/vars"].attrs["name"] = "same"


def own_name(name: str) -> Callable[[Any], None]:
    def fill(file: Any) -> None:
        valid_new(file)
        file["layers/dense/vars"].attrs["name"] = name

    return fill


def named(layer: str) -> Callable[[Any], None]:
    def fill(file: Any) -> None:
        valid_old(file)
        file.move("conv", "x")
        file.id.links.move(b"x", file.id, layer.encode())

    return fill


BOMB = bytes(50_000_000)
BIAS = "conv/conv/bias:0"
HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "external link to an array": (swap(BIAS, set_link(h5py.ExternalLink("neighbour.h5", "x"))), "another file"),
    "external link to a layer": (swap("conv", set_link(h5py.ExternalLink("neighbour.h5", "/"))), "another file"),
    "external link to a device": (swap(BIAS, set_link(h5py.ExternalLink("/dev/zero", "x"))), "another file"),
    "model_weights elsewhere": (
        lambda file: set_link(h5py.ExternalLink("neighbour.h5", "/"))(file, "model_weights"), "another file"),
    "layers elsewhere": (
        lambda file: set_link(h5py.ExternalLink("neighbour.h5", "/"))(file, "layers"), "another file"),
    "soft link to an array": (swap(BIAS, set_link(h5py.SoftLink("/dense/dense/kernel:0"))), "has a link"),
    "soft link to nothing": (swap(BIAS, set_link(h5py.SoftLink("/nothing"))), "has a link"),
    "soft link to itself": (swap("conv", set_link(h5py.SoftLink("/conv"))), "has a link"),
    "group in itself": (swap(BIAS, hard_link("conv")), "in another place too"),
    "root in a layer": (swap(BIAS, hard_link("/")), "in another place too|impossible name|has .* layers"),
    "one array twice": (swap(BIAS, hard_link("conv/conv/kernel:0")), "in another place too"),
    "groups without end": (crowd, "in another place too"),
    "groups too deep": (deep, "impossible name"),
    "virtual": (swap(BIAS, virtual), "other files or other arrays"),
    "external storage": (
        swapped_dataset(shape=(3,), dtype="f8", external=[("neighbour.h5", 0, 24)]), "other files or other arrays"),
    "huge": (swapped_dataset(shape=(2**40,), dtype="f4"), "claims more"),
    "huge in chunks": (swapped_dataset(shape=(2**40,), dtype="f4", chunks=(2**20,)), "claims more"),
    "huge chunk": (swapped_dataset(shape=(4,), maxshape=(None,), dtype="f4", chunks=(2**29,)), "claims more"),
    "compressed zeros": (
        swapped_dataset(data=np.zeros(100_000_000, "u1"), chunks=(10_000_000,), compression="gzip"), "claims more"),
    "a chunk that inflates": (swap(BIAS, raw_chunk(deflated, zlib.compress(BOMB))), "chunks of more or less"),
    "a chunk that inflates to little": (
        swap(BIAS, raw_chunk(deflated, zlib.compress(b"12345678"))), "chunks of more or less"),
    "a chunk that is no zlib": (swap(BIAS, raw_chunk(deflated, b"1234567890")), "damaged"),
    "a long chunk": (swap(BIAS, raw_chunk(lambda plist: None, bytes(4096))), "chunks of more or less"),
    "a short chunk": (swap(BIAS, raw_chunk(lambda plist: None, bytes(7))), "chunks of more or less"),
    "a short chunk, not deflated": (swap(BIAS, raw_chunk(deflated, bytes(7), 1)), "chunks of more or less"),
    "deflated twice": (
        swap(BIAS, raw_chunk(twice_deflated, zlib.compress(zlib.compress(BOMB)))), "another way than gzip"),
    "another filter": (swapped_dataset(data=np.zeros(9), compression="lzf"), "another way than gzip"),
    "nothing written": (swapped_dataset(shape=(9,), dtype="f4"), "not all of its numbers"),
    "no chunk written": (swapped_dataset(shape=(9,), dtype="f4", chunks=(3,)), "not all of its numbers"),
    "no shape": (swapped_dataset(data=h5py.Empty("f4")), "an array of numbers"),
    "texts": (swapped_dataset(data=["a", "b"]), "an array of numbers"),
    "texts of one length": (swapped_dataset(data=np.array([b"a", b"bc"])), "an array of numbers"),
    "lists": (swapped_dataset(shape=(0,), dtype=h5py.vlen_dtype(np.dtype("f4"))), "an array of numbers"),
    "references": (swapped_dataset(shape=(0,), dtype=h5py.ref_dtype), "an array of numbers"),
    "records": (swapped_dataset(data=np.zeros(2, "f4, i4")), "an array of numbers"),
    "complex": (swapped_dataset(data=np.zeros(2, complex)), "an array of numbers"),
    "opaque": (swapped_dataset(data=np.zeros(2, "V2")), "an array of numbers"),
    "a type in place of an array": (swap(BIAS, set_link(np.dtype("f4"))), "neither a group nor an array"),
    "a group in place of an array": (swap(BIAS, lambda group, name: group.create_group(name)), "not as many"),
    "an array in place of a layer": (swap("conv", set_link(B)), "not as many"),
    "an array among variables of groups": (lambda file: set_link(B)(file, "x"), "not as Keras"),
    "no layer_names": (attributes(drop=("/", "layer_names")), "not as Keras"),
    "no weight_names": (attributes(drop=("conv", "weight_names")), "has 2 layers, not as many"),
    "too many layer_names": (attributes(drop=("/", "layer_names"), value=[b"a"] * 4), "has 3 layers, not as many"),
    "too many weight_names": (attributes(drop=("conv", "weight_names"), value=[b"a"] * 3), "has 2 arrays in 'conv'"),
    "weight_names is a number": (attributes(drop=("conv", "weight_names"), value=7), "not as many"),
    "a layer lacks": (swap("conv", lambda group, name: None), "has 2 layers, not as many"),
    "an array lacks": (swap(BIAS, lambda group, name: None), "has 1 arrays in 'conv'"),
    "a name of dots": (named(".."), "impossible name"),
    "a name of two lines": (named("a\nb"), "impossible name"),
    "a name too long": (named("a" * 2000), "impossible name"),
    "a layer that calls itself ..": (own_name("../../x"), "impossible name"),
    "a layer that calls itself at length": (own_name("x" * 100_000), "impossible name"),
    "two layers of one name": (two_of_one_name, "two arrays named"),
    "nothing at all": (lambda file: None, "holds no weights"),
    "layers without weights": (lambda file: write_old(file, a={}, b={}), "holds no weights"),
    "some other file": (lambda file: set_link(B)(file, "measurements/x"), "not as Keras"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(case: str, tmp_path: Path) -> None:
    fill, match = HOSTILE[case]
    write(tmp_path / "neighbour.h5", lambda file: (valid_old(file), set_link(np.ones(3))(file, "x")))
    assert_refused(write(tmp_path / "hostile.h5", fill), match)


@pytest.mark.parametrize("fill", [valid_old, valid_new])
def test_truncated_files_are_refused_wherever_they_end(fill: Any, tmp_path: Path) -> None:
    content = write(tmp_path / "whole.h5", fill).read_bytes()
    for length in {*range(0, 130), *range(130, len(content), 101), len(content) - 1}:
        (tmp_path / "cut.h5").write_bytes(content[:length])
        assert_refused(tmp_path / "cut.h5")


@pytest.mark.parametrize("name", ["keras3.weights.h5", "tf-swiftformer/tf_model.h5", "keras3.keras"])
def test_truncated_recordings_are_refused(name: str, tmp_path: Path) -> None:
    content = (FIXTURES / name).read_bytes()
    for length in range(0, len(content), len(content) // 50):
        (tmp_path / "cut").write_bytes(content[:length])
        assert_refused(tmp_path / "cut")


@pytest.mark.parametrize("content", [b"", b"\x89HD", b"\x80\x02}q\x00.", b"a text", bytes(4096), b"\x93NUMPY" * 99])
def test_other_files_are_refused_by_their_first_bytes(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.h5").write_bytes(content)
    assert_refused(tmp_path / "file.h5", "is neither HDF5 nor a Keras archive: it begins with b")


def test_a_file_with_something_before_its_start_is_refused(tmp_path: Path) -> None:
    assert_refused(write(tmp_path / "file.h5", valid_old, userblock_size=512), "is neither HDF5")


def test_what_is_no_file_is_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.h5", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"^there is no file .*{path.name}$"):
            read_h5(path)


def test_a_damaged_heap_of_texts_is_refused(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "file.h5", valid_new).read_bytes())
    at = content.index(b"GCOL") + 16
    for number, size in [(0, 0), (1, 0), (1, 8), (1, 10), (2, 9), (1, 2**64 - 16), (1, 2**64 - 1), (1, 2**40)]:
        content[at : at + 16] = struct.pack("<HHIQ", number, 1, 0, size)
        (tmp_path / "file.h5").write_bytes(content)
        assert_refused(tmp_path / "file.h5", "a text in its heap is of an impossible size|that is not in its heap")


@pytest.mark.parametrize("length", [8, 10, 300, 2**31 - 1, 2**32 - 1])
def test_a_text_that_is_longer_or_shorter_in_its_heap_is_refused(length: int, tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "file.h5", valid_new).read_bytes())
    at = content.index(struct.pack("<Q", content.index(b"GCOL")))
    assert content[at - 4 : at] == struct.pack("<I", len("my_conv2d"))
    content[at - 4 : at] = struct.pack("<I", length)
    (tmp_path / "file.h5").write_bytes(content)
    assert_refused(tmp_path / "file.h5", "a text of [0-9]+ bytes that is not in its heap")


def test_offsets_of_other_sizes_are_refused(tmp_path: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    plist.set_sizes(4, 4)
    with h5py.File(h5py.h5f.create(str(tmp_path / "file.h5").encode(), fcpl=plist)) as file:
        valid_old(file)
    assert_refused(tmp_path / "file.h5", "places that are not of 8 bytes")


# --- archives --------------------------------------------------------------------------------------------------------


def archive(path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as file:
        warnings.simplefilter("ignore")  # zipfile's, about members of one name
        for name, content in members:
            file.writestr(name, content)
    return path


def image(fill: Callable[[Any], None] = valid_new) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    return buffer.getvalue()


CONFIG = json.dumps({"config": {"layers": []}}).encode()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives_are_read_whether_compressed_or_not(compression: int, tmp_path: Path) -> None:
    members = [("config.json", CONFIG), ("model.weights.h5", image()), ("assets/vocabulary.txt", b"a")]
    weights = read_h5(archive(tmp_path / "file.keras", members, compression))
    assert set(weights.arrays) == {"my_conv2d/kernel", "my_conv2d/bias", "my_dense/kernel", "my_dense/bias"}
    assert weights.metadata == {"model_config": CONFIG.decode()}


def test_the_config_names_layers_that_do_not_name_themselves(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        for kind in ("conv2d", "conv2d_1", "depthwise_conv2d", "re_lu"):
            file[f"layers/{kind}/vars/0"] = np.ones((1, 1, 1, 1))

    kinds = ["InputLayer", "Conv2D", "ReLU", "DepthwiseConv2D", "Conv2D"]
    layers = [{"class_name": kind, "config": {"name": f"layer {i}"}} for i, kind in enumerate(kinds)]
    config = json.dumps({"config": {"layers": layers}}).encode()
    members = [("config.json", config), ("model.weights.h5", image(fill))]
    names = set(read_h5(archive(tmp_path / "file.keras", members)).arrays)
    assert names == {"layer 1/kernel", "layer 2/kernel", "layer 3/kernel", "layer 4/kernel"}


HOSTILE_ARCHIVES: dict[str, tuple[Callable[[], list[tuple[str, bytes]]], str]] = {
    "empty": (lambda: [], "neither HDF5"),
    "no weights": (lambda: [("config.json", CONFIG)], "lacks model.weights.h5"),
    "no config": (lambda: [("model.weights.h5", image())], "lacks config.json"),
    "weights that are not HDF5": (
        lambda: [("config.json", CONFIG), ("model.weights.h5", b"text")], "model.weights.h5 that is not HDF5"),
    "weights cut off": (lambda: [("config.json", CONFIG), ("model.weights.h5", image()[:-1])], "damaged"),
    "config that is no JSON": (lambda: [("config.json", b"{"), ("model.weights.h5", image())], "damaged"),
    "config too deep": (lambda: [("config.json", b"[" * 10**6), ("model.weights.h5", image())], "damaged"),
    "layers without names": (
        lambda: [("config.json", b'{"config": {"layers": [1]}}'), ("model.weights.h5", image())], "without a name"),
    "two configs": (
        lambda: [("config.json", CONFIG), ("model.weights.h5", image()), ("config.json", b"{}")], "of one name"),
    "a way out": (
        lambda: [("config.json", CONFIG), ("model.weights.h5", image()), ("../../x", b"")], "impossible name"),
    "bomb": (lambda: [("config.json", CONFIG), ("model.weights.h5", bytes(80_000_000))], "claims more"),
    "HDF5 that points elsewhere": (
        lambda: [("config.json", CONFIG), ("model.weights.h5", image(HOSTILE["external link to an array"][0]))],
        "another file"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_ARCHIVES)
def test_hostile_archives_are_refused(case: str, tmp_path: Path) -> None:
    members, match = HOSTILE_ARCHIVES[case]
    assert_refused(archive(tmp_path / "file.keras", members(), zipfile.ZIP_DEFLATED), match)


# --- mutations -------------------------------------------------------------------------------------------------------


def mutated(content: bytes, generator: random.Random) -> bytes:
    """Some bytes changed, zeroed, moved, or cut off."""
    data = bytearray(content)
    for _ in range(generator.choice([1, 1, 1, 2, 4, 16])):
        at, length = generator.randrange(len(data)), generator.choice([1, 1, 1, 4, 8, 64])
        source = generator.randrange(len(data))
        kind = generator.random()
        if kind < 0.5:
            data[at] = generator.randrange(256)
        elif kind < 0.98:
            span = len(data[at : at + length])
            data[at : at + span] = generator.choice([bytes(span), b"\xff" * span, data[source:][:span].ljust(span)])
        else:
            del data[max(at, 8) :]
    return bytes(data)


def fuzz(path: Path, count: int) -> None:
    """Read that many mutations of a file; CheckpointError is all that may come of it. Runs in its own process."""
    content, generator = path.read_bytes(), random.Random(path.name)
    messages: list[str] = []
    for _ in range(count):
        path.write_bytes(mutated(content, generator))
        try:
            read_h5(path)
        except CheckpointError as error:
            messages.append(str(error))
    assert all(message.startswith(str(path)) and "\n" not in message for message in messages)
    print(len(messages))


FUZZED = {"old.h5": valid_old, "new.h5": valid_new, "archive.keras": None}


@pytest.mark.parametrize(
    ("name", "rounds"), sweep([(name, rounds) for name in FUZZED for rounds in (120, 4000)], lambda c: c[1] == 120)
)
def test_mutated_files_are_refused_or_read(name: str, rounds: int, tmp_path: Path) -> None:
    fill: Any = FUZZED[name]
    path = tmp_path / name
    if fill is None:
        archive(path, [("config.json", CONFIG), ("model.weights.h5", image())])
    else:
        write(path, fill, libver="earliest")
    # A fault in the library itself would end the process: not this one.
    code = f"from pathlib import Path; from {__name__} import fuzz; fuzz(Path({str(path)!r}), {rounds})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert rounds // 4 < int(done.stdout) < rounds + (fill is None)
