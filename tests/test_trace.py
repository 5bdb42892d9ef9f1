"""Recording: which names, in which order, with which values; and the file they are kept in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from npformer import Module, Trace, ops, record, watch
from npformer.checkpoint import write_tensors
from npformer.nn import Activation
from tests import tiny
from tests.support import BARE, SWIFT, TWO_HEADS

BLOCK = "efficientformer.encoder.last_stage.meta3D_layers.blocks.0"
MIXER = f"{BLOCK}.token_mixer"
MAP_BLOCK = "efficientformer.encoder.intermediate_stages.0.meta4D_layers.blocks.0"
SWIFT_BLOCK = "swiftformer.encoder.network.2.blocks.1"
MLP_ENTRIES = ("mlp.convolution1", "layernorm2", "linear.norm1")  # what comes first in the second half of a block


class Thrice(Module):
    """Calls one child three times and taps one value twice."""

    def __init__(self) -> None:
        self.double = Activation(lambda x: 2 * x)

    def forward(self, x: Any) -> Any:
        for _ in range(3):
            x = self.double(x)
        return self.tap("sum", self.tap("sum", x, "D") + 1, "D")


def putting(name: str, replacement: Any) -> Any:
    """An observer that puts another value in the place of one."""
    return lambda seen, module, inputs, output, layout: replacement if seen == name else output


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.model(TWO_HEADS)


@pytest.fixture(scope="module")
def trace(model: Any) -> Trace:
    return record(model, tiny.pictures())


# --- what is recorded ------------------------------------------------------------------------------------------------


def test_values_come_in_the_order_they_were_computed(trace: Trace) -> None:
    names = [name.removeprefix(f"{BLOCK}.").replace(f"{BLOCK}:", ":") for name in trace if name.startswith(BLOCK)]
    assert names == [
        "layernorm1", "token_mixer.qkv", "token_mixer:query", "token_mixer:key", "token_mixer:value",
        "token_mixer:bias", "token_mixer:scores", "token_mixer:probs", "token_mixer:context", "token_mixer.projection",
        "token_mixer", "drop_path#1", ":mixed", "layernorm2", "mlp.linear_in", "mlp.activation", "mlp.dropout#1",
        "mlp.linear_out", "mlp.dropout", "mlp", "drop_path", BLOCK,
    ]  # fmt: skip
    assert next(iter(trace)) == "efficientformer.patch_embed.convolution1"
    assert list(trace)[-5:] == ["efficientformer", ":pooled", "classifier", "distillation_classifier", ""]


def test_every_module_that_is_called_is_recorded(model: Any, trace: Trace) -> None:
    uncalled = {name for name, _ in model.named_modules() if name.endswith(("blocks", "intermediate_stages"))}
    assert {name.split("#")[0] for name in trace if ":" not in name} | uncalled == dict(model.named_modules()).keys()


def test_earlier_calls_of_one_module_are_numbered() -> None:
    trace = record(Thrice(), np.array([1.0]))
    assert {name: value.tolist() for name, value in trace.items()} == {
        "double#1": [2], "double#2": [4], "double": [8], ":sum#1": [8], ":sum": [9], "": [9],
    }  # fmt: skip
    assert list(trace) == ["double#1", "double#2", "double", ":sum#1", ":sum", ""]
    assert trace.layouts == {"double#1": "B", "double#2": "B", "double": "B", ":sum#1": "D", ":sum": "D", "": "B"}


def test_the_stem_calls_its_one_relu_twice(trace: Trace) -> None:
    first, second = (trace[f"efficientformer.patch_embed.activation{number}"] for number in ("#1", ""))
    np.testing.assert_array_equal(first, ops.relu(trace["efficientformer.patch_embed.batchnorm_before"]))
    np.testing.assert_array_equal(second, ops.relu(trace["efficientformer.patch_embed.batchnorm_after"]))


def test_recording_gives_what_the_model_returns(model: Any, trace: Trace) -> None:
    output = model(tiny.pictures(), output_hidden_states=True, output_attentions=True)
    np.testing.assert_array_equal(trace[""], output.logits)
    np.testing.assert_array_equal(trace["classifier"], output.cls_logits)
    np.testing.assert_array_equal(trace["efficientformer.encoder"], output.hidden_states[-1])
    np.testing.assert_array_equal(trace[f"{MIXER}:probs"], output.attentions[0])


def test_options_reach_the_model() -> None:
    classifier = tiny.model()
    trace = record(classifier, tiny.pictures(), labels=np.array([1, 2]), return_dict=False)
    assert trace[""].shape == ()  # of a tuple the first, here the loss
    assert trace.layouts[""] == ""
    assert record(classifier, tiny.pictures(), labels=np.array([1, 2]))[""].shape == (2, 5)


def test_inner_values_of_attention_fit_together(model: Any, trace: Trace) -> None:
    query, key, value, bias, scores, probs = (
        trace[f"{MIXER}:{name}"] for name in ("query", "key", "value", "bias", "scores", "probs")
    )
    packed = trace[f"{MIXER}.qkv"].reshape(2, 4, 2, 12).swapaxes(1, 2)  # batch, heads, tokens, 3 + 3 + 6
    np.testing.assert_array_equal(np.concatenate([query, key, value], -1), packed)
    table = dict(model.named_modules())[MIXER].attention_biases
    offsets = [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]  # 2|dy| + |dx| on a 2 x 2 grid
    np.testing.assert_array_equal(bias, table[:, offsets])
    np.testing.assert_allclose(scores, query @ key.swapaxes(2, 3) / np.sqrt(3) + bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(probs, ops.softmax(scores, -1), rtol=1e-6)
    context = trace[f"{MIXER}:context"]
    np.testing.assert_allclose(context, (probs @ value).swapaxes(1, 2).reshape(2, 4, 12), rtol=1e-5, atol=1e-6)
    projection = dict(model.named_modules())[f"{MIXER}.projection"]
    np.testing.assert_array_equal(trace[f"{MIXER}.projection"], projection(context))


def test_inner_values_of_pooling_and_of_the_head(trace: Trace) -> None:
    mixer = "efficientformer.encoder.intermediate_stages.0.meta4D_layers.blocks.0.token_mixer"
    np.testing.assert_array_equal(trace[f"{mixer}:pooled"], trace[f"{mixer}.pool"])
    difference = trace[f"{mixer}.pool"] - trace["efficientformer.patch_embed"]
    np.testing.assert_array_equal(trace[mixer], difference)
    np.testing.assert_allclose(trace[":pooled"], trace["efficientformer"].mean(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("class_name", "block", "before"),
    [
        (TWO_HEADS, MAP_BLOCK, "efficientformer.patch_embed"),
        (TWO_HEADS, BLOCK, "efficientformer.encoder.last_stage.flat"),
        (SWIFT, SWIFT_BLOCK, f"{SWIFT_BLOCK}.local_representation"),
    ],
)
def test_between_the_halves_of_a_block_its_input_and_the_mixer_are_added(
    class_name: str, block: str, before: str
) -> None:
    trace = record(tiny.model(class_name), tiny.pictures())
    np.testing.assert_array_equal(trace[f"{block}:mixed"], trace[before] + trace[f"{block}.drop_path#1"])
    np.testing.assert_array_equal(trace[block], trace[f"{block}:mixed"] + trace[f"{block}.drop_path"])


def test_inner_values_of_additive_attention_fit_together() -> None:
    model = tiny.model(SWIFT)
    trace, layer = record(model, tiny.pictures()), dict(model.named_modules())[f"{SWIFT_BLOCK}.attn"]
    query, key, weights, global_query, context = (
        trace[f"{SWIFT_BLOCK}.attn:{name}"] for name in ("query", "key", "weights", "global_query", "context")
    )
    np.testing.assert_allclose(global_query, (weights * query).sum(1, keepdims=True), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(context, global_query * key)
    np.testing.assert_array_equal(trace[f"{SWIFT_BLOCK}.attn.proj"], layer.proj(context))


@pytest.mark.parametrize(("class_name", "block"), [(TWO_HEADS, MAP_BLOCK), (TWO_HEADS, BLOCK), (SWIFT, SWIFT_BLOCK)])
def test_both_uses_of_what_lies_between_the_halves_see_its_replacement(class_name: str, block: str) -> None:
    model = tiny.model(class_name)
    shape = record(model, tiny.pictures())[f"{block}:mixed"].shape
    other = np.random.default_rng(1).standard_normal(shape, np.float32)
    with watch(model, putting(f"{block}:mixed", other)):
        trace = record(model, tiny.pictures())
    np.testing.assert_array_equal(trace[block], other + trace[f"{block}.drop_path"])
    entry = next(name for name in trace if name.startswith(f"{block}.") and name.endswith(MLP_ENTRIES))
    np.testing.assert_array_equal(trace[entry], dict(model.named_modules())[entry](other))


@pytest.mark.parametrize("class_name", [TWO_HEADS, SWIFT])
def test_every_inner_value_is_used(class_name: str) -> None:
    """Another in its place changes what the model returns."""
    model = tiny.model(class_name)
    trace = record(model, tiny.pictures())
    for name in (name for name in trace if ":" in name):
        with watch(model, putting(name, -trace[name])):
            assert np.abs(model(tiny.pictures()).logits - trace[""]).max() > 1e-4, name


def test_layouts_spell_every_axis(trace: Trace) -> None:
    assert trace.layouts.keys() == trace.keys()
    assert all(len(layout) == trace[name].ndim for name, layout in trace.layouts.items())
    expected = {
        f"{MIXER}:query": "BhNd", f"{MIXER}:key": "BhNd", f"{MIXER}:value": "BhNd", f"{MIXER}:bias": "hNN",
        f"{MIXER}:scores": "BhNN", f"{MIXER}:probs": "BhNN", f"{MIXER}:context": "BND", f"{BLOCK}:mixed": "BND",
        f"{MAP_BLOCK}:mixed": "BCHW", MIXER: "BND", "efficientformer.patch_embed": "BCHW",
        ":pooled": "BD", "": "BD",
    }  # fmt: skip
    assert {name: trace.layouts[name] for name in expected} == expected


# --- a read-only mapping ---------------------------------------------------------------------------------------------


def test_a_trace_is_a_mapping(trace: Trace) -> None:
    assert len(trace) == len(list(trace)) == len(trace.items())
    assert "" in trace
    assert "no such layer" not in trace
    assert trace.get("no such layer") is None
    with pytest.raises(KeyError):
        trace["no such layer"]


def test_a_trace_cannot_be_changed(trace: Trace) -> None:
    with pytest.raises(TypeError, match="item assignment"):
        trace["x"] = np.zeros(1)  # type: ignore[index]
    for value in trace.values():
        with pytest.raises(ValueError, match="read-only"):
            value[...] = 0


def test_a_trace_leaves_the_arrays_it_was_made_of_alone() -> None:
    array = np.zeros(3)
    trace = Trace({"a": array}, {"a": "B"})
    array[0] = 1  # still writeable
    assert trace["a"].base is array


def test_what_was_recorded_stays_when_the_model_runs_again(model: Any) -> None:
    trace = record(model, tiny.pictures())
    before = {name: value.tobytes() for name, value in trace.items()}
    record(model, tiny.pictures() + 1)
    assert {name: value.tobytes() for name, value in trace.items()} == before


def test_size_and_repr() -> None:
    trace = Trace({"a": np.zeros((500, 1000)), "b": np.zeros(2), "c": np.zeros(1), "d": np.zeros(1)}, {})
    assert trace.nbytes == 4_000_032
    assert repr(trace) == "Trace(4 values, 4.0 MB: 'a', 'b', 'c', ...)"


# --- the file --------------------------------------------------------------------------------------------------------


def same(ours: Trace, theirs: Trace) -> bool:
    return (
        list(ours) == list(theirs)
        and ours.layouts == theirs.layouts
        and all(
            (ours[name].dtype, ours[name].shape, ours[name].tobytes())
            == (theirs[name].dtype, theirs[name].shape, theirs[name].tobytes())
            for name in ours
        )
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saving_and_loading_gives_the_same_trace(model: Any, tmp_path: Path, dtype: Any) -> None:
    trace = record(model.astype(dtype), tiny.pictures())
    trace.save(tmp_path / "a.safetensors")
    again = Trace.load(tmp_path / "a.safetensors")
    assert same(again, trace)
    assert again[""].dtype == dtype
    again.save(str(tmp_path / "b.safetensors"))
    assert same(Trace.load(str(tmp_path / "b.safetensors")), trace)


def test_scalars_empty_arrays_and_odd_names_survive(tmp_path: Path) -> None:
    values = {
        "": np.array(3.5), "z": np.zeros((0, 3)), "a.b:c#1": np.arange(6.0).reshape(2, 3).T,
        "é 名": np.ones(1, np.float16), "n": np.array([1, 2]),
    }  # fmt: skip
    trace = Trace(values, dict.fromkeys(values, "B"))
    trace.save(tmp_path / "trace")
    assert same(Trace.load(tmp_path / "trace"), trace)


def test_an_empty_trace_survives(tmp_path: Path) -> None:
    Trace({}, {}).save(tmp_path / "trace")
    assert same(Trace.load(tmp_path / "trace"), Trace({}, {}))


def test_a_loaded_trace_is_read_only_too(trace: Trace, tmp_path: Path) -> None:
    trace.save(tmp_path / "trace")
    assert not any(value.flags.writeable for value in Trace.load(tmp_path / "trace").values())


def test_others_can_read_the_file(trace: Trace, tmp_path: Path) -> None:
    trace.save(tmp_path / "trace")
    values = safetensors.numpy.load_file(tmp_path / "trace")
    assert values.keys() == trace.keys()
    assert all(np.array_equal(values[name], trace[name]) for name in trace)
    with safetensors.safe_open(tmp_path / "trace", "np") as file:
        metadata = file.metadata()
    assert metadata["format"] == "npformer-trace"
    assert json.loads(metadata["order"]) == list(trace)
    assert json.loads(metadata["layouts"])[""] == "BD"


def test_a_file_of_weights_is_no_trace(tmp_path: Path) -> None:
    write_tensors(tmp_path / "weights.safetensors", {"a": np.zeros(3)}, {"format": "pt"})
    with pytest.raises(ValueError, match=r"weights\.safetensors is a safetensors file but not a trace"):
        Trace.load(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"order": '["a"]'},
        {"layouts": '{"a": "B"}'},
        {"order": "no JSON", "layouts": '{"a": "B"}'},
        {"order": '["a", "b"]', "layouts": '{"a": "B"}'},
        {"order": "[]", "layouts": "{}"},
        {"order": '["b"]', "layouts": '{"b": "B"}'},
        {"order": "3", "layouts": '{"a": "B"}'},
        {"order": '[["a"]]', "layouts": '{"a": "B"}'},
        {"order": '["a"]', "layouts": '["a"]'},
        {"order": "[" * 100_000, "layouts": '{"a": "B"}'},
    ],
)
def test_a_trace_whose_order_does_not_fit_is_refused_by_name(metadata: dict[str, str], tmp_path: Path) -> None:
    write_tensors(tmp_path / "broken", {"a": np.zeros(3)}, {"format": "npformer-trace", **metadata})
    with pytest.raises(ValueError, match="broken is damaged: its order and layouts do not name the values it holds"):
        Trace.load(tmp_path / "broken")


def test_what_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*missing"):
        Trace.load(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere to write trace into"):
        Trace({}, {}).save(tmp_path / "nowhere" / "trace")
    (tmp_path / "text").write_text("these are just words")
    with pytest.raises(ValueError, match="text is not a safetensors file"):
        Trace.load(tmp_path / "text")


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace.save(tmp_path / "trace")
    before = (tmp_path / "trace").read_bytes()

    def half(tensors: Any, path: Path, metadata: Any) -> None:
        Path(path).write_bytes(before[:100])
        raise safetensors.SafetensorError("no space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", half)
    with pytest.raises(OSError, match="trace cannot be written: no space left on device"):
        Trace({"a": np.zeros(3)}, {"a": "B"}).save(tmp_path / "trace")
    assert [path.name for path in tmp_path.iterdir()] == ["trace"]
    assert (tmp_path / "trace").read_bytes() == before


def test_a_bare_model_records_without_prefix() -> None:
    assert list(record(tiny.model(BARE), tiny.pictures()))[-2:] == ["layernorm", ""]
