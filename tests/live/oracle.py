"""PyTorch's side of every comparison: transformers' own classes, watched by forward hooks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers.models.deprecated import efficientformer as hf

from tests.support import Case, random_state


def build(case: Case) -> torch.nn.Module:
    """transformers' model of that case, float32, in eval mode, with its initial weights."""
    # `hidden_size` is what the two-headed class reads and the config class lacks.
    config = hf.EfficientFormerConfig(**case.settings, hidden_size=case.settings["hidden_sizes"][-1])
    return getattr(hf, case.class_name)(config)


def load(model: torch.nn.Module, state: dict[str, np.ndarray], dtype: torch.dtype) -> torch.nn.Module:
    model = model.to(dtype)
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    return model.eval()  # last: eval() is what gathers the attention biases


def random_model(case: Case, dtype: torch.dtype) -> torch.nn.Module:
    model = build(case)
    return load(model, random_state({name: t.numpy() for name, t in model.state_dict().items()}), dtype)


def record(model: torch.nn.Module, pixel_values: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor that a named module returns, earlier calls of the same module as "<name>#1", ..., in order.

    Inside attention and after the last layer norm transformers names nothing; those values are computed here, in
    torch, from the tensors around them.
    """
    calls: dict[str, list[np.ndarray]] = {}
    order: list[tuple[str, int]] = []
    modules = dict(model.named_modules())

    def keep(name: str, tensor: torch.Tensor) -> None:
        calls.setdefault(name, []).append(tensor.detach().numpy().copy())
        order.append((name, len(calls[name])))

    def hook(name: str) -> Any:
        parent, _, last = name.rpartition(".")

        def call(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            if name == "classifier":
                keep(":pooled", inputs[0])
            tensor = main_tensor(output)
            if tensor is not None:
                keep(name, tensor)
            if last == "qkv":
                for value_name, value in _inside_attention(modules[parent], output).items():
                    keep(f"{parent}:{value_name}", value)
            if last == "pool":
                keep(f"{parent}:pooled", output)

        return call

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    with torch.no_grad():
        model(torch.tensor(pixel_values))
    for handle in handles:
        handle.remove()
    return {
        name if number == len(calls[name]) else f"{name}#{number}": calls[name][number - 1] for name, number in order
    }


def main_tensor(output: Any) -> torch.Tensor | None:
    if isinstance(output, torch.Tensor):
        return output
    if hasattr(output, "keys"):
        return output["logits"] if "logits" in output else output["last_hidden_state"]
    return main_tensor(output[0]) if isinstance(output, tuple) else None


def _inside_attention(module: Any, packed: torch.Tensor) -> dict[str, torch.Tensor]:
    batch, tokens, _ = packed.shape
    packed = packed.view(batch, tokens, module.num_heads, 2 * module.key_dim + module.expanded_key_dim)
    packed = packed.permute(0, 2, 1, 3)
    query, key, value = torch.split(packed, [module.key_dim, module.key_dim, module.expanded_key_dim], -1)
    scores = torch.einsum("bhid,bhjd->bhij", query, key) / module.key_dim**0.5 + module.ab
    return {
        "query": query, "key": key, "value": value, "bias": module.ab, "scores": scores, "probs": scores.softmax(-1),
    }  # fmt: skip
