"""Files that PyTorch itself wrote, in both containers, are read as PyTorch reads them."""

from __future__ import annotations

import argparse
import collections
import copy
import json
import pathlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from npformer.checkpoint.torch_file import read_torch, read_torch_index  # noqa: E402
from npformer.checkpoint.weights import CheckpointError, Weights  # noqa: E402

# The container, and the pickle protocol: 2 is PyTorch's default, 4 and 5 have other instructions.
WAYS = [(True, 2), (True, 4), (True, 5), (False, 2), (False, 4)]
DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


@pytest.fixture(params=WAYS, ids=lambda way: f"{'zip' if way[0] else 'legacy'}-{way[1]}")
def way(request: Any) -> tuple[bool, int]:
    return request.param


def save_and_read(value: Any, way: tuple[bool, int], path: Path) -> Weights:
    torch.save(value, path / "file.pth", _use_new_zipfile_serialization=way[0], pickle_protocol=way[1])
    return read_torch(path / "file.pth")


def as_numpy(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().resolve_neg().resolve_conj()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def assert_equal(arrays: dict[str, np.ndarray], tensors: dict[str, Any]) -> None:
    assert list(arrays) == list(tensors)
    for name, tensor in tensors.items():
        expected = as_numpy(tensor)
        assert (arrays[name].shape, arrays[name].dtype) == (expected.shape, expected.dtype), name
        np.testing.assert_array_equal(arrays[name], expected, err_msg=name)
        assert arrays[name].flags.aligned, name


def layouts(dtype: Any) -> dict[str, Any]:
    """The same numbers laid out in every way that a tensor can have."""
    base = torch.arange(120).reshape(2, 3, 4, 5).to(dtype)
    row = torch.arange(50).to(dtype)
    return {
        "contiguous": base.clone(),
        "transposed": base.clone().transpose(1, 3),
        "permuted": base.permute(3, 0, 2, 1),
        "channels last": base.clone().contiguous(memory_format=torch.channels_last),
        "sliced": base[:, 1:, ::2, 1:4],
        "one row": base[1, 2, 3],
        "one element": base[1, 2, 3, 4],
        "scalar": torch.tensor(1).to(dtype),
        "expanded": row[3].expand(4, 7),
        "expanded rows": row[:5].reshape(5, 1).expand(5, 6),
        "overlapping windows": row.unfold(0, 6, 2),
        "diagonal": torch.arange(16).reshape(4, 4).to(dtype).diagonal(),
        "shared tail": row[40:],
        "shared again": row,
        "size one, odd stride": row[:7].as_strided((1, 3, 1), (999, 2, 77)),
        "empty": torch.empty(0, dtype=dtype),
        "empty with axes": torch.empty(3, 0, 2, dtype=dtype),
        "empty slice": base[:, 3:],
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_of_every_dtype(dtype: str, way: tuple[bool, int], tmp_path: Path) -> None:
    tensors = layouts(getattr(torch, dtype))
    weights = save_and_read(tensors, way, tmp_path)
    assert_equal(weights.arrays, tensors)
    assert weights.container == ("PyTorch zip" if way[0] else "PyTorch before 1.6")
    assert (weights.notes, weights.metadata) == ([], {})
    assert not any(array.flags.writeable for name, array in weights.arrays.items() if array.size)


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
def test_dtypes_that_have_no_storage_of_their_own(dtype: str, way: tuple[bool, int], tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6).reshape(2, 3).to(getattr(torch, dtype)).T, "b": torch.ones(2)}
    assert_equal(save_and_read(tensors, way, tmp_path).arrays, tensors)


def test_all_dtypes_in_one_file(way: tuple[bool, int], tmp_path: Path) -> None:
    tensors = {dtype: torch.arange(7).to(getattr(torch, dtype)) for dtype in DTYPES}
    assert_equal(save_and_read(tensors, way, tmp_path).arrays, tensors)


def test_special_numbers_come_through_bit_by_bit(way: tuple[bool, int], tmp_path: Path) -> None:
    values = torch.tensor([0.0, -0.0, 1e-40, 3e38, float("inf"), float("-inf"), float("nan")])
    tensors = {"float32": values, "bfloat16": values.bfloat16(), "float16": values.half()}
    arrays = save_and_read(tensors, way, tmp_path).arrays
    for name, tensor in tensors.items():
        assert arrays[name].tobytes() == as_numpy(tensor).tobytes()


def test_tied_tensors_stay_one_array(way: tuple[bool, int], tmp_path: Path) -> None:
    tied = torch.arange(3.0)
    arrays = save_and_read({"a": tied, "b": tied, "c": tied[1:]}, way, tmp_path).arrays
    assert arrays["a"] is arrays["b"]
    assert np.shares_memory(arrays["a"], arrays["c"])


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.GELU())
        self.head = torch.nn.Linear(4, 3, bias=False)
        self.scale = torch.nn.Parameter(torch.arange(3.0))
        self.register_buffer("index", torch.arange(5))
        self.register_buffer("hidden", torch.arange(4), persistent=False)
        self.register_parameter("absent", None)
        self.tied = self.head


def test_a_state_dict_has_metadata_which_is_ignored(way: tuple[bool, int], tmp_path: Path) -> None:
    state = Net().state_dict()
    assert state._metadata
    weights = save_and_read(state, way, tmp_path)
    assert_equal(weights.arrays, state)
    assert weights.notes == []


def test_named_parameters(way: tuple[bool, int], tmp_path: Path) -> None:
    parameters = dict(Net().named_parameters())
    assert_equal(save_and_read(parameters, way, tmp_path).arrays, parameters)


def test_a_parameter_with_attributes(way: tuple[bool, int], tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.arange(3.0))
    parameter.no_decay = True
    assert_equal(save_and_read({"a": parameter}, way, tmp_path).arrays, {"a": parameter})


@pytest.mark.parametrize("wrap", ["plain", "data parallel"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_whole_module(wrap: str, way: tuple[bool, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Net, "__module__", "__main__")  # as in the script of who saved it
    monkeypatch.setattr("__main__.Net", Net, raising=False)
    net = Net()
    weights = save_and_read(net if wrap == "plain" else torch.nn.DataParallel(net), way, tmp_path)
    expected = net.state_dict()
    assert weights.arrays.keys() == expected.keys()
    assert_equal(weights.arrays, {name: expected[name] for name in weights.arrays})
    assert "its code was not" in weights.notes[0]
    assert len(weights.notes) == (1 if wrap == "plain" else 2)  # the other is about the prefix


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_module_of_a_library(way: tuple[bool, int], tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Sequential(torch.nn.BatchNorm2d(2)))
    assert_equal(save_and_read(net, way, tmp_path).arrays, net.state_dict())


def training_file() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the checkpoint of the original EfficientFormer's training, and the weights in it."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    average = copy.deepcopy(net.state_dict())
    arguments = argparse.Namespace(model="efficientformer_l1", lr=1e-3, output_dir=pathlib.PurePosixPath("out"))
    arguments.device, arguments.sizes = torch.device("cpu"), torch.Size([2, 3])
    arguments.dtype, arguments.layers = torch.float32, {1, 2}
    return {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"base": [1e-3], "factory": collections.defaultdict(list, {"a": [1]})},
        "epoch": 299,
        "model_ema": average,
        "scaler": {},
        "best": np.float64(81.5),
        "rng": np.arange(624, dtype=np.uint32),
        "args": arguments,
    }, net.state_dict()


def test_a_training_file(way: tuple[bool, int], tmp_path: Path) -> None:
    content, state = training_file()
    weights = save_and_read(content, way, tmp_path)
    assert_equal(weights.arrays, state)
    assert weights.notes == [
        "the weights are under 'model'",
        "left out: optimizer, lr_scheduler, epoch, model_ema, scaler, best, rng, args",
    ]
    assert weights.metadata == {"epoch": "299", "args.model": "efficientformer_l1", "args.lr": "0.001"}


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "net", "module", "params"])
def test_other_wrappers_with_prefixes(key: str, way: tuple[bool, int], tmp_path: Path) -> None:
    state = {f"module._orig_mod.{name}": tensor for name, tensor in Net().state_dict().items()}
    weights = save_and_read({"epoch": 1, key: {"state_dict": state}}, way, tmp_path)
    assert_equal(weights.arrays, Net().state_dict() | {n.split(".", 2)[2]: t for n, t in state.items()})
    assert weights.notes == [
        f"the weights are under {key!r}.'state_dict'",
        "left out: epoch",
        "the prefix 'module.' was dropped from every name",
        "the prefix '_orig_mod.' was dropped from every name",
    ]


def test_numpy_arrays_among_the_weights(way: tuple[bool, int], tmp_path: Path) -> None:
    arrays = {
        dtype: np.arange(-3, 3).reshape(2, 3).astype(dtype) for dtype in ["f8", "f4", "f2", "i8", "i4", "u1", "?"]
    }
    arrays |= {"fortran": np.asfortranarray(arrays["f4"]), "scalar": np.array(2.5), "empty": np.zeros((0, 3), "f4")}
    arrays["long"] = np.arange(3000, dtype=np.float32)
    result = save_and_read({**arrays, "tensor": torch.ones(2), "number": np.float32(1)}, way, tmp_path)
    assert result.arrays.keys() == {*arrays, "tensor"}
    for name, expected in arrays.items():
        assert (result.arrays[name].dtype, result.arrays[name].shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(result.arrays[name], expected)
    assert result.notes == ["left out: number"]


REFUSED = {
    "complex": (lambda: torch.zeros(2, dtype=torch.complex64), "dtype ComplexFloat"),
    "float8": (lambda: torch.zeros(2).to(torch.float8_e4m3fn), "dtype float8_e4m3fn"),
    "sparse": (lambda: torch.eye(2).to_sparse(), "sparse tensor"),
    "meta": (lambda: torch.zeros(2, device="meta"), "meta"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_that_numpy_cannot_hold_are_refused_by_name(kind: str, way: tuple[bool, int], tmp_path: Path) -> None:
    make, what = REFUSED[kind]
    with pytest.raises(CheckpointError, match=rf"the tensor head\.weight .*{what}"):
        save_and_read({"a": torch.ones(1), "head.weight": make()}, way, tmp_path)


def test_a_torchscript_file_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "file.pt"))
    with pytest.raises(CheckpointError, match="is a TorchScript program"):
        read_torch(tmp_path / "file.pt")


@pytest.mark.parametrize("value", [[], {}, 3, "text", None, {"a": 1}], ids=str)
def test_files_without_tensors_are_refused(value: Any, way: tuple[bool, int], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds"):
        save_and_read(value, way, tmp_path)


def test_shards_and_their_index(way: tuple[bool, int], tmp_path: Path) -> None:
    state = {f"model.{name}": tensor for name, tensor in Net().state_dict().items()}
    names = list(state)
    weight_map = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(names)}
    for shard in set(weight_map.values()):
        held = {name: tensor for name, tensor in state.items() if weight_map[name] == shard}
        torch.save(held, tmp_path / shard, _use_new_zipfile_serialization=way[0], pickle_protocol=way[1])
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    weights = read_torch_index(index)
    assert_equal(weights.arrays, {name.removeprefix("model."): tensor for name, tensor in state.items()})
    assert weights.notes == ["the weights are in 2 shards", "the prefix 'model.' was dropped from every name"]
