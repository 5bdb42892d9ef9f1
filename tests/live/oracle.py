"""PyTorch's side of every comparison: transformers' own classes, watched by forward hooks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from transformers.models.deprecated import efficientformer
from transformers.models.efficientnet.modeling_efficientnet import EfficientNetDepthwiseLayer, EfficientNetEmbeddings
from transformers.models.swiftformer.modeling_swiftformer import SwiftFormerEfficientAdditiveAttention

from tests.support import ONE_HEAD, SWIFT, TWO_HEADS, Case, random_state

# Values that are no module's output but one's input: class of the module around it, its name in there -> value's name.
INPUTS = {
    ("EfficientFormerMeta4D", "mlp"): "mixed",
    ("EfficientFormerMeta3D", "layernorm2"): "mixed",
    ("SwiftFormerEncoderBlock", "linear"): "mixed",
    ("EfficientFormerSelfAttention", "projection"): "context",
    ("SwiftFormerEfficientAdditiveAttention", "proj"): "context",
    (ONE_HEAD, "classifier"): "pooled",
    (TWO_HEADS, "classifier"): "pooled",
    (SWIFT, "head"): "pooled",
}


def build(case: Case) -> torch.nn.Module:
    """transformers' model of that case, float32, with its initial weights; what it cannot express is put in here."""
    settings = dict(case.settings)
    if case.family == "EfficientFormer":
        # `hidden_size` is what the two-headed class reads and the config class lacks.
        config = efficientformer.EfficientFormerConfig(**settings, hidden_size=settings["hidden_sizes"][-1])
        return getattr(efficientformer, case.class_name)(config)
    padding, norm = settings.pop("padding", "hf-static"), settings.pop("attention_norm", "ones")
    model = getattr(transformers, case.class_name)(getattr(transformers, f"{case.family}Config")(**settings))
    for module in list(model.modules()):
        if padding != "hf-static" and isinstance(module, (EfficientNetEmbeddings, EfficientNetDepthwiseLayer)):
            is_stem = isinstance(module, EfficientNetEmbeddings)
            kernel = module.convolution.kernel_size[0] if is_stem else module.depthwise_conv.kernel_size[0]
            setattr(module, "padding" if is_stem else "depthwise_conv_pad", Pad(padding, kernel))
        if norm == "l2" and isinstance(module, SwiftFormerEfficientAdditiveAttention):
            module.forward = l2_attention.__get__(module)
    return model


class Pad(torch.nn.Module):
    """The paddings transformers lacks: TensorFlow's SAME for the picture as it comes, and symmetric."""

    def __init__(self, mode: str, kernel: int) -> None:
        super().__init__()
        self.mode, self.kernel = mode, kernel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "symmetric":
            return F.pad(x, (self.kernel // 2,) * 4)
        # At stride 2 an even side needs k - 2 pixels in all, an odd one k - 1.
        down, across = (self.kernel - 2 + side % 2 for side in x.shape[2:])
        return F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))


def l2_attention(self: Any, x: torch.Tensor) -> torch.Tensor:
    """SwiftFormer's attention as re-released: the scores normalised over the tokens instead of softmaxed alone."""
    query, key = F.normalize(self.to_query(x), dim=-1), F.normalize(self.to_key(x), dim=-1)
    weights = F.normalize(query @ self.w_g * self.scale_factor, dim=1)
    return self.final(self.proj((weights * query).sum(dim=1, keepdim=True) * key) + query)


def load(model: torch.nn.Module, state: dict[str, np.ndarray], dtype: torch.dtype) -> torch.nn.Module:
    model = model.to(dtype)
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    return model.eval()  # last: eval() is what gathers the attention biases


def random_model(case: Case, dtype: torch.dtype) -> torch.nn.Module:
    model = build(case)
    return load(model, random_state({name: t.numpy() for name, t in model.state_dict().items()}), dtype)


def record(model: torch.nn.Module, pixel_values: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor that a named module returns, earlier calls of the same module as "<name>#1", ..., in order.

    What transformers names nothing is seen where it enters the next module (between the halves of a block, before
    attention's output projection, after the last norm), or computed here, in torch, from the tensors around it (inside
    attention).
    """
    calls: dict[str, list[np.ndarray]] = {}
    order: list[tuple[str, int]] = []
    modules = dict(model.named_modules())

    def keep(name: str, tensor: torch.Tensor) -> None:
        calls.setdefault(name, []).append(tensor.detach().numpy().copy())
        order.append((name, len(calls[name])))

    def output_hook(name: str) -> Any:
        parent, _, last = name.rpartition(".")

        def call(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            tensor = main_tensor(output)
            if tensor is not None:
                keep(name, tensor)
            inside: dict[str, torch.Tensor] = {}
            if last == "qkv":
                inside = _inside_attention(modules[parent], output)
            if last == "to_key":
                inside = _inside_additive(modules[parent], torch.tensor(calls[f"{parent}.to_query"][-1]), output)
            for value_name, value in inside.items():
                keep(f"{parent}:{value_name}", value)
            if last == "pool":
                keep(f"{parent}:pooled", output)

        return call

    def input_hook(name: str) -> Any:
        return lambda module, inputs: keep(name, inputs[0])

    handles = [module.register_forward_hook(output_hook(name)) for name, module in modules.items()]
    for name, module in modules.items():
        parent, _, last = name.rpartition(".")
        value_name = INPUTS.get((type(modules[parent]).__name__, last))
        if value_name is not None:
            handles.append(module.register_forward_pre_hook(input_hook(f"{parent}:{value_name}")))
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


def _inside_additive(module: Any, query: torch.Tensor, key: torch.Tensor) -> dict[str, torch.Tensor]:
    query, key = query / query.norm(dim=-1, keepdim=True), key / key.norm(dim=-1, keepdim=True)
    scores = torch.einsum("bnd,dk->bnk", query, module.w_g) / query.shape[-1] ** 0.5
    is_l2 = getattr(module.forward, "__func__", None) is l2_attention
    weights = scores / scores.norm(dim=1, keepdim=True) if is_l2 else torch.softmax(scores, -1)
    return {"query": query, "key": key, "weights": weights, "global_query": (weights * query).sum(1, keepdim=True)}
