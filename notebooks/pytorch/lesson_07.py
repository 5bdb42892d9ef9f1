"""transformers' EfficientFormer with the shipped weights, in float64: some numbers of what every module returns."""

import json
from pathlib import Path

import numpy as np

from npformer.assets import model_directory, sample_pictures
from npformer.checkpoint import read_tensors

PICTURE = "dress-2.png"
SAMPLES = 64  # of each module's output, evenly spread


def values(torch):
    from PIL import Image
    from transformers.models.deprecated import efficientformer as hf

    directory = model_directory("efficientformer-fashion")
    model = hf.EfficientFormerForImageClassification(hf.EfficientFormerConfig(**settings(directory, "config.json")))
    state = {name: torch.tensor(array) for name, array in read_tensors(directory / "model.safetensors").items()}
    model.load_state_dict(state, strict=False)  # attention_bias_idxs may be left out
    model.double().train().eval()  # eval() last: it is what gathers the attention biases

    outputs = {}

    def keep(name):
        def hook(module, inputs, output):
            outputs[name] = (output if isinstance(output, torch.Tensor) else output[0]).numpy()

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(keep(name))
    processor = hf.EfficientFormerImageProcessor(**settings(directory, "preprocessor_config.json"))
    path = next(path for path in sample_pictures() if path.name == PICTURE)
    pixels = processor(Image.open(path).convert("RGB"), return_tensors="np")["pixel_values"]
    logits = model(torch.tensor(pixels).double()).logits
    return {
        "names": np.frombuffer("\n".join(outputs).encode(), np.uint8),
        "samples": np.stack([sampled(output) for output in outputs.values()]),
        "pixels": sampled(pixels),
        "logits": logits.numpy(),
    }


def sampled(values):
    """Numbers from all over an array: (SAMPLES,)."""
    return values.reshape(-1)[np.linspace(0, values.size - 1, SAMPLES).astype(int)].astype(np.float64)


def settings(directory: Path, name: str) -> dict:
    return json.loads((directory / name).read_text())
