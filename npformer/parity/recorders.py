"""Recorders of a port's values for frameworks with hooks, PyTorch, ONNX Runtime, Flax; and a tape for all others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..ops import Array
from .dump import Dump

_FLOATS = ("float64", "float32", "float16", "bfloat16")


def record_torch(model: Any, pixel_values: Any, **options: Any) -> Dump:
    """Run a PyTorch module once and record the output of every module below it, by name, in order.

    Of several outputs of a module the first is kept, of a model's output the logits or the last hidden state.
    Earlier calls of a module that is called more than once are "<name>#1", ..., as in `npformer.record`. pixel_values:
    a tensor, or an array, which is converted to the dtype and device of the model's parameters.
    """
    import torch

    calls: dict[str, list[torch.Tensor]] = {}
    order: list[tuple[str, int]] = []

    def keep(name: str, output: Any) -> None:
        tensor = _main_tensor(output)
        if tensor is not None and tensor.is_floating_point():
            calls.setdefault(name, []).append(tensor.detach().clone())  # a later op may work in place
            order.append((name, len(calls[name])))

    if isinstance(pixel_values, np.ndarray):
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        pixel_values = torch.tensor(pixel_values).to(like.device, like.dtype)
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: keep(name, output))
        for name, module in model.named_modules()
    ]
    try:
        with torch.no_grad():
            model(pixel_values, **options)
    finally:
        for hook in hooks:
            hook.remove()
    values, dtypes = {}, {}
    for name, number in order:
        tensor = calls[name][number - 1]
        key = name if number == len(calls[name]) else f"{name}#{number}"
        dtypes[key] = str(tensor.dtype).removeprefix("torch.")
        values[key] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
    return Dump(values, dtypes=dtypes, source=type(model).__name__)


def _main_tensor(output: Any) -> Any:
    """Return the main tensor of a module's output."""
    if hasattr(output, "keys"):
        output = output["logits"] if "logits" in output else output.get("last_hidden_state")
    while isinstance(output, tuple | list) and output:
        output = output[0]
    return output if hasattr(output, "is_floating_point") else None


def record_onnxruntime(model: str | Path | bytes, pixel_values: Array, *, optimized: bool = False) -> Dump:
    """Run an ONNX model on ONNX Runtime and record every intermediate value, by the graph's names, in order.

    Values that do not depend on the input, such as constants and transposed weights, are omitted. With `optimized` the
    graph is first rewritten as the runtime does before it runs it, layers fused; without, it is run unchanged.
    pixel_values is passed to the graph's first input.
    """
    import onnx
    import onnxruntime

    # Read by onnx: large weights are in files beside the model's.
    graph = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(str(model))
    if optimized:
        graph = onnx.load_from_string(_optimized(graph.SerializeToString()))
    weights = {tensor.name for tensor in graph.graph.initializer}
    reached = {value.name for value in graph.graph.input} - weights
    order = []
    for node in graph.graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            order += [name for name in node.output if name]
    given = {output.name for output in graph.graph.output}
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in order if name not in given)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), _options(onnxruntime, optimize=False))
    found = session.run(order, {session.get_inputs()[0].name: pixel_values})
    values = {session.get_inputs()[0].name: pixel_values}
    values |= {n: v for n, v in zip(order, found, strict=True) if isinstance(v, np.ndarray) and v.dtype.kind == "f"}
    return Dump(values, source="ONNX Runtime")


def _optimized(content: bytes) -> bytes:
    """Return the graph as ONNX Runtime optimises it: layers fused, constants folded, no processor-specific layout."""
    import tempfile

    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = _options(onnxruntime, optimize=True)
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(content, options)
        return Path(options.optimized_model_filepath).read_bytes()


def _options(onnxruntime: Any, *, optimize: bool) -> Any:
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_EXTENDED if optimize else level.ORT_DISABLE_ALL
    options.log_severity_level = 3  # errors only: it warns about its own optimised file
    return options


def record_flax(module: Any, variables: Any, pixel_values: Any, **options: Any) -> Dump:
    """Run a flax.linen module once and record its modules' outputs and sown values, by path ("stem/conv"), in order.

    Of a module called more than once, earlier calls are "<path>#1", ..., and of several outputs the first is kept;
    values that a module sows precede its output. Inside what Flax itself jits or scans there are no values to see: use
    a `Tape` there.
    """
    import flax.linen

    tape = Tape()

    def keep(name: str, value: Any) -> None:
        while isinstance(value, tuple | list) and value:
            value = value[0]
        if hasattr(value, "dtype") and np.dtype(value.dtype).name in _FLOATS:
            tape(name, value)

    def watch(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        output = call(*arguments, **keywords)
        if context.method_name == "__call__":
            path = context.module.path
            for key, sown in context.module.variables.get("intermediates", {}).items():
                if isinstance(sown, tuple):  # one value per call; a mapping is a module below
                    keep("/".join((*path, key)), sown[-1])
            keep("/".join(path), output)
        return output

    with flax.linen.intercept_methods(watch):
        module.apply(variables, pixel_values, mutable=["intermediates"], **options)
    return Dump(tape, source=type(module).__name__)


class Tape(dict[str, Any]):
    """A recorder called where values are computed: `x = tape("stem.conv", x)`; then `compare(..., tape)`.

    In JAX create the tape inside the jitted function and return it, `return logits, OrderedDict(tape)`: from a plain
    dict the values are returned sorted by name, not in order. A name that is repeated becomes "<name>#1", and the last
    has the plain name. NumPy's arrays are copied, as a later op may work in place.
    """

    def __call__(self, name: str, value: Any) -> Any:
        """Record the value under that name and return it."""
        if name in self:
            number = 1 + sum(key.startswith(f"{name}#") for key in self)
            earlier = list(self.items())
            self.clear()
            self.update((f"{name}#{number}" if key == name else key, kept) for key, kept in earlier)
        self[name] = value.copy() if isinstance(value, np.ndarray) else value
        return value
