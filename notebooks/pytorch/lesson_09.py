"""What PyTorch computes for lesson 9: SwiftFormer's attention, both of its blocks, and the shipped model's logits."""

from __future__ import annotations

from typing import Any

import numpy as np


def values(torch: Any) -> dict[str, np.ndarray]:
    """transformers' own modules in float64, all weights random and of order one, and `F.normalize` on hard cases."""
    from transformers import SwiftFormerConfig
    from transformers.models.swiftformer import modeling_swiftformer as theirs

    functional = torch.nn.functional
    generator = np.random.default_rng(9)
    out: dict[str, np.ndarray] = {}

    def draw(*shape: int) -> Any:
        return torch.from_numpy(generator.standard_normal(shape))

    def fill(prefix: str, module: Any) -> Any:
        """Give a module random weights of order one, its variances positive ones, and write them down."""
        module = module.double().eval()
        state = {}
        for name, value in module.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            state[name] = draw(*value.shape)
            if name.endswith("running_var"):
                state[name] = state[name].abs() + 0.5
            elif value.ndim >= 2 and not name.endswith("w_g"):
                state[name] /= max(value[0].numel(), 1) ** 0.5
            out[f"{prefix}.{name}"] = state[name].numpy()
        module.load_state_dict(state, strict=False)
        return module

    rows = draw(5, 6)
    rows[1], rows[2], rows[3] = 0, rows[2] * 1e-13, rows[3] * 1e13  # none, shorter than eps, long
    out["normalize/x"], out["normalize/y"] = rows.numpy(), functional.normalize(rows, dim=-1).numpy()

    config = SwiftFormerConfig()
    width = 12
    attention = fill("attn", theirs.SwiftFormerEfficientAdditiveAttention(config, width))
    x = draw(2, 10, width)
    out["attn/x"], out["attn/out"] = x.numpy(), attention(x).numpy()
    # The authors' later code, of which transformers has no copy: the scores over their length over the tokens.
    query = functional.normalize(attention.to_query(x), dim=-1)
    key = functional.normalize(attention.to_key(x), dim=-1)
    weights = functional.normalize(query @ attention.w_g * width**-0.5, dim=1)
    global_query = (weights * query).sum(1, keepdim=True)
    out["attn/out_l2"] = attention.final(attention.proj(global_query * key) + query).numpy()
    attention.w_g.copy_(1000 * draw(width, 1))
    out["attn/out_other_w_g"] = attention(x).numpy()

    channels = 4
    picture = draw(2, channels, 5, 7)
    out["block/x"] = picture.numpy()
    out["conv_encoder/out"] = fill("conv_encoder", theirs.SwiftFormerConvEncoder(config, channels))(picture).numpy()
    out["encoder_block/out"] = fill("encoder_block", theirs.SwiftFormerEncoderBlock(config, channels))(picture).numpy()
    out["fashion/logits"] = fashion_logits(torch)
    return out


def fashion_logits(torch: Any) -> np.ndarray:
    """transformers' logits of the shipped model for the first two shipped pictures."""
    from transformers import SwiftFormerForImageClassification

    from npformer import AutoImageProcessor, load_image
    from npformer.assets import model_directory, sample_pictures

    name = "swiftformer-fashion"
    images = [load_image(path) for path in list(sample_pictures())[:2]]
    pixel_values = AutoImageProcessor.from_pretrained(name)(images, return_tensors="np")["pixel_values"]
    model = SwiftFormerForImageClassification.from_pretrained(model_directory(name)).double().eval()
    return model(torch.from_numpy(pixel_values.astype(np.float64))).logits.numpy()
