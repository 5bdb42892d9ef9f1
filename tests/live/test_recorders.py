"""The recorders against the frameworks themselves; faults planted in real ports; the README's snippets."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npformer
from npformer.parity import Tape, compare, read_dump, record_flax, record_onnxruntime, record_torch, write_dump
from tests.parity.planted import FAMILIES
from tests.support import fill, pixel_values

README = (Path(npformer.__file__).parent / "parity" / "README.md").read_text("utf-8")


def block(start: str) -> str:
    """The code block of the README that begins with that line's beginning."""
    return next(code for code in re.findall(r"```\w*\n(.*?)```", README, re.DOTALL) if code.startswith(start))


def run_block(start: str, **names: Any) -> dict[str, Any]:
    code = block(start)
    assert len(code.splitlines()) <= 20
    namespace = dict(names)
    exec(compile(code, "README.md", "exec"), namespace)
    return namespace


# --- PyTorch -----------------------------------------------------------------------------------------------------


def torch_model(family: str) -> tuple[Any, Any, np.ndarray]:
    pytest.importorskip("torch", reason="needs torch 2.13.0")
    pytest.importorskip("transformers", reason="needs transformers 4.56.2")
    import torch

    from tests.live import oracle

    case = FAMILIES[family]
    x = pixel_values(case.shape).astype(np.float32)
    return oracle.random_model(case, torch.float32), fill(case.model(), np.float32), x


@pytest.mark.parametrize("family", FAMILIES)
def test_torch_has_our_names_in_our_order(family: str) -> None:
    theirs, ours, x = torch_model(family)
    from tests.live import oracle

    dump = record_torch(theirs, x)
    expected = npformer.record(ours.astype(np.float64), x.astype(np.float64))
    assert list(dump) == [name for name in expected if ":" not in name]
    for name, value in dump.items():
        assert value.shape == expected[name].shape, name
        bound = 1e-3 * np.abs(expected[name]).max()
        assert np.abs(value - expected[name]).max() < bound, name
    exact = oracle.record(theirs, x)
    assert all(np.array_equal(value, exact[name]) for name, value in dump.items())
    assert dump.ordered
    assert set(dump.dtypes.values()) == {"float32"}
    assert not any(module._forward_hooks for module in theirs.modules())
    assert compare(ours, x, dump).equal


def small(torch: Any, *, after: Any = None) -> Any:
    """A convolution whose result is changed in place, and called twice."""

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 1)
            self.relu = torch.nn.ReLU(inplace=True)
            self.index = torch.nn.Identity()
            self.pair = Pair()

        def forward(self, x: Any, scale: float = 1.0) -> Any:
            x = self.relu(self.conv(x))
            x = self.conv(x)
            x.mul_(scale)
            self.index(torch.arange(3))
            if after is not None:
                raise after
            return {"logits": self.pair(x)[0], "other": x}

    class Pair(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return [(x + 1, x)]

    torch.manual_seed(0)
    return Small()


def test_torch_keeps_values_as_they_were() -> None:
    torch = pytest.importorskip("torch", reason="needs torch 2.13.0")
    model = small(torch)
    x = torch.randn(2, 3, 4, 5)
    dump = record_torch(model, x, scale=3.0)
    first = model.conv(x)
    second = model.conv(first.clamp(min=0))
    assert list(dump) == ["conv#1", "relu", "conv", "pair", ""]  # no integers
    for name, value in {"conv#1": first, "relu": first.clamp(min=0), "conv": second, "pair": 3 * second + 1}.items():
        np.testing.assert_array_equal(dump[name], value.detach().numpy(), name)
    np.testing.assert_array_equal(dump[""], dump["pair"])
    assert dump.source == "Small"


def test_torch_loses_its_hooks_when_the_model_fails() -> None:
    torch = pytest.importorskip("torch", reason="needs torch 2.13.0")
    model = small(torch, after=KeyError("on purpose"))
    with pytest.raises(KeyError, match="on purpose"):
        record_torch(model, torch.randn(1, 3, 2, 2))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_torch_in_other_dtypes(dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="needs torch 2.13.0")
    kind = getattr(torch, dtype)
    model = small(torch).to(kind)
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 4))
    dump = record_torch(model, x)  # an array takes the model's dtype
    assert set(dump.dtypes.values()) == {dtype}
    assert dump["conv#1"].dtype == np.dtype("float32" if dtype == "bfloat16" else dtype)
    expected = model.conv(torch.tensor(x).to(kind)).detach().double().numpy()
    np.testing.assert_array_equal(dump["conv#1"].astype(np.float64), expected)


def test_torch_without_parameters() -> None:
    torch = pytest.importorskip("torch", reason="needs torch 2.13.0")
    assert record_torch(torch.nn.ReLU(), np.ones((1, 3, 2, 2)))[""].dtype == np.float32


# --- ONNX Runtime ------------------------------------------------------------------------------------------------


def onnx_model(family: str) -> tuple[bytes, Any, np.ndarray]:
    pytest.importorskip("onnx", reason="needs onnx")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    theirs, ours, x = torch_model(family)
    from tests.live.onnx_export import export_onnx

    return export_onnx(theirs, x), ours, x


@pytest.mark.parametrize("optimized", [False, True], ids=["plain", "optimized"])
@pytest.mark.parametrize("family", FAMILIES)
def test_onnxruntime_computes_what_it_does_without_being_watched(family: str, optimized: bool) -> None:
    content, _, x = onnx_model(family)
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"pixel_values": x})[0]
    dump = record_onnxruntime(content, x, optimized=optimized)
    names = list(dump)
    assert names[0] == "pixel_values"
    assert names[-1] == "logits"
    assert dump.ordered
    np.testing.assert_array_equal(dump["pixel_values"], x)
    np.testing.assert_allclose(dump["logits"], expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert {value.dtype.kind for value in dump.values()} == {"f"}


def test_onnxruntime_keeps_every_nodes_values_in_order(tmp_path: Path) -> None:
    content, _, x = onnx_model("EfficientNet")
    import onnx

    graph = onnx.load_from_string(content).graph
    dump = record_onnxruntime(content, x)
    order = {name: i for i, name in enumerate(name for node in graph.node for name in node.output)}
    places = [order[name] for name in list(dump)[1:]]
    assert places == sorted(places)
    convolutions = [node.output[0] for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert set(convolutions) <= set(dump)
    other = record_onnxruntime(content, x[::-1].copy())
    assert not [name for name in dump if np.array_equal(dump[name], other[name])]  # no constants, no weights
    fused = record_onnxruntime(content, x, optimized=True)
    assert len(fused) < 0.8 * len(dump)
    model = onnx.load_from_string(content)
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    for optimized, expected in ((False, dump), (True, fused)):
        beside = record_onnxruntime(path, x, optimized=optimized)  # weights in a file of their own
        assert list(beside) == list(expected)
        np.testing.assert_array_equal(beside["logits"], expected["logits"])


def fault_relu(graph: Any) -> str:
    node = next(node for node in graph.node if node.op_type == "Relu")
    node.op_type = "Sigmoid"
    return "swiftformer.patch_embed.patch_embedding.2"


def fault_eps(graph: Any) -> str:
    norms = [node for node in graph.node if node.op_type == "BatchNormalization" and "network.2/" in node.name]
    next(a for a in norms[0].attribute if a.name == "epsilon").f = 1e-3
    return "swiftformer.encoder.network.2.blocks.0.norm"


def fault_weight(graph: Any) -> str:
    """One tap of one kernel."""
    import onnx

    array = next(a for a in graph.initializer if a.name.endswith("network.3.proj.weight"))
    changed = onnx.numpy_helper.to_array(array).copy()
    changed[5, 7, 1, 2] += 0.01
    array.CopyFrom(onnx.numpy_helper.from_array(changed, array.name))
    return "swiftformer.encoder.network.3.proj"


def fault_head(graph: Any) -> str:
    """A bias that is added half."""
    node = next(node for node in graph.node if node.op_type == "Gemm" and any("dist" in i for i in node.input))
    attribute = next(a for a in node.attribute if a.name == "beta")
    attribute.f = 0.5
    return "dist_head"


@pytest.mark.parametrize(
    ("fault", "cause"),
    [(None, ""), (fault_relu, "sigmoid"), (fault_eps, "eps"), (fault_weight, ""), (fault_head, "")],
    ids=["none", "relu", "eps", "weight", "head"],
)
def test_a_fault_in_an_onnx_graph_is_named(fault: Any, cause: str) -> None:
    content, ours, x = onnx_model("SwiftFormer")
    import onnx

    model = onnx.load_from_string(content)
    at = fault(model.graph) if fault else None
    report = compare(ours, x, record_onnxruntime(model.SerializeToString(), x))
    assert [found.op for found in report.faults] == ([at] if at else [])
    assert report.equal is (at is None)
    assert report.tested > 0.55 * len(report.values)
    if cause:
        assert cause in report.faults[0].causes[0].key, report.faults[0].causes


# --- JAX and Flax ------------------------------------------------------------------------------------------------


def test_flax_keeps_what_every_module_returns() -> None:
    jax = pytest.importorskip("jax", reason="needs jax")
    nn = pytest.importorskip("flax.linen", reason="needs flax")

    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.Conv(4, (1, 1), name="conv")(x)
            self.sow("intermediates", "halved", x / 2)
            return (x, 3)

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x: Any, extra: float = 0.0) -> Any:
            twice = Inner(name="stem")
            x, _ = twice(x)
            x, _ = twice(x[..., :3])
            return nn.Dense(2, name="a_head")(x.mean((1, 2)) + extra)

    x = np.random.default_rng(0).standard_normal((2, 5, 4, 3)).astype(np.float32)
    module = Outer()
    variables = module.init(jax.random.key(0), x)
    dump = record_flax(module, variables, x, extra=0.5)
    stem = ("stem/conv", "stem/halved", "stem")
    assert list(dump) == [*(f"{name}#1" for name in stem), *stem, "a_head", ""]
    assert dump.ordered
    kernel, bias = (np.asarray(variables["params"]["stem"]["conv"][k]) for k in ("kernel", "bias"))
    first = x @ kernel[0, 0] + bias
    np.testing.assert_allclose(dump["stem/conv#1"], first, atol=1e-5)
    np.testing.assert_allclose(dump["stem#1"], first, atol=1e-5)
    np.testing.assert_allclose(dump["stem/conv"], first[..., :3] @ kernel[0, 0] + bias, atol=1e-5)
    np.testing.assert_array_equal(dump["stem/halved"], dump["stem"] / 2)
    np.testing.assert_array_equal(dump[""], module.apply(variables, x, extra=0.5))
    half = record_flax(module, jax.tree.map(lambda a: a.astype("bfloat16"), variables), x.astype("bfloat16"))
    assert half["stem"].dtype == np.float32
    assert set(half.dtypes.values()) == {"bfloat16"}


def test_a_tape_within_jit_and_without() -> None:
    jax = pytest.importorskip("jax", reason="needs jax")

    def run(x: Any) -> Any:
        tape = Tape()
        for _ in range(3):
            x = tape("z", x * 2)
        x = tape("a", x.astype("bfloat16"))
        return x, OrderedDict(tape)

    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    for function in (run, jax.jit(run)):
        out, values = function(x)
        assert list(values) == ["z#1", "z#2", "z", "a"]
        for name, factor in {"z#1": 2, "z#2": 4, "z": 8}.items():
            np.testing.assert_array_equal(values[name], factor * x)
        from npformer.parity.dump import as_dump

        dump = as_dump(values)
        assert (dump["a"].dtype, dump.dtypes["a"]) == (np.float32, "bfloat16")
        np.testing.assert_array_equal(dump["a"], np.asarray(out.astype("float32")))


def test_a_tape_keeps_numpys_arrays_as_they_were() -> None:
    tape, x = Tape(), np.ones(3)
    assert tape("x", x) is x
    x += 1
    tape("x", x)
    tape("y", [1.0])
    assert {name: list(value) for name, value in tape.items()} == {"x#1": [1] * 3, "x": [2] * 3, "y": [1]}


# --- the README's snippets ---------------------------------------------------------------------------------------


def test_the_readmes_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, ours, x = torch_model("SwiftFormer")
    monkeypatch.chdir(tmp_path)
    run_block("from npformer.parity import record_torch", model=model, pixel_values=x)
    expected = record_torch(model, x)
    assert list(read_dump("port-dump.npz")) == list(expected)
    run_block("import numpy as np\nimport torch\n", model=model, pixel_values=x)  # without npformer
    hooked = read_dump("hooked.npz")
    assert set(hooked) <= {name.partition("#")[0] for name in expected}
    assert compare(ours, x, hooked).equal
    assert compare(ours, x, hooked).tested > 50


def test_the_readmes_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, ours, x = onnx_model("SwiftFormer")
    monkeypatch.chdir(tmp_path)
    Path("port.onnx").write_bytes(content)
    run_block("from npformer.parity import record_onnxruntime", pixel_values=x)
    assert compare(ours, x, "port-dump.safetensors").equal


def test_the_readmes_jax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax", reason="needs jax")
    monkeypatch.chdir(tmp_path)
    names = run_block("from collections import OrderedDict", **jax_case())
    dump = read_dump("port-dump")
    assert list(dump) == ["patch_embed.convolution1", "patch_embed.activation"]
    assert names["logits"].shape == (2, 8, 8, 4)


def jax_case() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 16, 16)).astype(np.float32)
    return {"pixel_values": x, "weights": {"conv": rng.standard_normal((3, 3, 3, 4)).astype(np.float32)}}


def test_the_readmes_flax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jax = pytest.importorskip("jax", reason="needs jax")
    nn = pytest.importorskip("flax.linen", reason="needs flax")
    monkeypatch.chdir(tmp_path)
    module, x = nn.Dense(3), np.ones((2, 4), np.float32)
    variables = module.init(jax.random.key(0), x)
    run_block("from npformer.parity import record_flax", module=module, variables=variables, pixel_values=x)
    assert list(read_dump("port-dump.npz")) == [""]


def test_a_recording_survives_each_form(tmp_path: Path) -> None:
    """Names of an ONNX graph begin with a slash, which no zip archive should hold."""
    content, _, x = onnx_model("SwiftFormer")
    dump = record_onnxruntime(content, x)
    for form in ("a.npz", "a.safetensors", "a"):
        write_dump(dump, tmp_path / form)
        read = read_dump(tmp_path / form)
        assert list(read) == list(dump)
        assert all(np.array_equal(read[name], value) for name, value in dump.items())
