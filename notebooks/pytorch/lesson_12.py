"""Lesson 12: what every layer of the three shipped models gives in float64, and some functions on their own.

Of each layer the file keeps the largest size of its values and a few of them, divided by it. Float32 results depend on
the processor that rounds them, so PyTorch's float32 errors are not computed here but written down: measured once, with
PyTorch 2.13 on one thread of an x86 processor, in units of 1e-9 of a layer's largest value.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import npformer

SAMPLES = 8  # values kept of each layer
PICTURE = "ankle-boot-1"
FLOAT32_ERRORS = {
    "efficientformer": [
        274, 366, 145, 227, 177, 177, 168, 370, 295, 402, 442, 394, 705, 705, 705, 702, 267, 267, 267, 580,
        612, 612, 615, 833, 434, 341, 467, 642, 701, 701, 701, 834, 689, 689, 689, 735, 357, 357, 586, 472,
        471, 465, 571, 517, 755, 755, 755, 509, 403, 488, 483, 563, 545, 806, 654, 716, 716, 716, 612, 658,
        658, 658, 610, 641, 641, 795, 492, 703, 755, 1077, 730, 1147, 1147, 1147, 953, 822, 822, 822, 846,
        635, 1616, 1616, 1046, 808, 1485, 751, 751, 751, 1077, 837, 1474, 1034, 1493, 1493, 1179, 1303, 1429,
        1115, 1115, 1115, 1109, 1103, 1103, 1103, 1103, 3474, 3474, 164, 164,
    ],
    "efficientnet": [
        0, 212, 167, 347, 347, 191, 235, 308, 308, 284, 69, 57, 54, 90, 331, 348, 466, 466, 466, 357, 364,
        374, 374, 374, 420, 728, 791, 791, 651, 149, 129, 136, 91, 778, 558, 745, 745, 745, 804, 856, 934,
        934, 934, 576, 582, 695, 695, 1391, 2917, 3534, 1222, 272, 694, 469, 477, 477, 477, 359, 439, 430,
        430, 430, 442, 578, 522, 522, 822, 402, 243, 233, 118, 459, 418, 552, 552, 552, 455, 506, 561, 561,
        431, 645, 638, 638, 824, 409, 439, 604, 478, 588, 513, 553, 553, 451, 451, 445, 501, 477, 477, 617,
        630, 501, 501, 1756, 270, 425, 143, 90, 403, 405, 394, 394, 394, 549, 603, 607, 607, 526, 627, 827,
        827, 649, 319, 1441, 1121, 344, 971, 707, 647, 647, 530, 530, 473, 570, 671, 671, 671, 584, 485, 524,
        524, 724, 220, 4114, 733, 196, 447, 534, 548, 548, 548, 570, 560, 588, 588, 563, 597, 482, 482, 1041,
        385, 456, 479, 168, 509, 507, 786, 786, 589, 589, 470, 560, 635, 635, 521, 661, 735, 735, 484, 382,
        328, 288, 195, 616, 743, 820, 820, 820, 518, 640, 717, 717, 588, 717, 588, 145, 145,
    ],
    "swiftformer": [
        147, 304, 304, 296, 355, 269, 269, 269, 212, 259, 266, 347, 377, 391, 320, 245, 444, 411, 336, 456,
        464, 354, 430, 402, 381, 480, 480, 451, 595, 479, 783, 783, 783, 844, 455, 455, 347, 436, 436, 289,
        611, 335, 386, 617, 604, 591, 390, 549, 505, 417, 348, 361, 401, 233, 331, 751, 729, 729, 403, 413,
        464, 597, 597, 597, 571, 533, 533, 339, 385, 385, 321, 373, 374, 393, 474, 466, 299, 313, 371, 392,
        811, 802, 797, 441, 327, 334, 379, 462, 490, 536, 509, 401, 546, 426, 476, 436, 447, 375, 452, 329,
        1195, 745, 745, 418, 320, 377, 342, 342, 342, 265, 417, 417, 752, 872, 872, 1010, 823, 443, 443, 615,
        524, 489, 392, 630, 653, 464, 508, 507, 392, 413, 300, 553, 534, 534, 782, 473, 558, 751, 751, 751,
        451, 387, 387, 387, 387, 735, 89, 88, 95,
    ],
}  # fmt: skip


def values(torch: Any) -> dict[str, np.ndarray]:
    """Layers in the order in which npformer records them; functions with the settings that the lesson uses."""
    kept = functions(torch)
    for family, theirs in models().items():
        ours = npformer.get_model(f"{family}-fashion", pretrained=True)
        trace = npformer.record(ours, pixels(f"{family}-fashion"))
        names = [name for name in trace if ":" not in name and "#" not in name]
        layers = hooked(torch, theirs.double().eval(), pixels(f"{family}-fashion").astype(np.float64))
        assert set(names) == set(layers), set(names) ^ set(layers)
        largest = np.array([np.abs(layers[name]).max() for name in names])
        kept[f"{family}.largest"] = largest
        kept[f"{family}.samples"] = np.array(
            [sampled(layers[name]) / top for name, top in zip(names, largest, strict=True)]
        )
        kept[f"{family}.float32"] = np.array(FLOAT32_ERRORS[family]) * 1e-9
    return kept


def models() -> dict[str, Any]:
    """transformers' classes with the weights of the shipped models."""
    from transformers.utils import import_utils

    import_utils._torchvision_available = False  # or transformers would import torchvision, which nothing here needs
    from transformers import EfficientNetForImageClassification, SwiftFormerForImageClassification
    from transformers.models.deprecated.efficientformer import EfficientFormerForImageClassification

    classes = {
        "efficientformer": EfficientFormerForImageClassification,
        "efficientnet": EfficientNetForImageClassification,
        "swiftformer": SwiftFormerForImageClassification,
    }
    folder = npformer.assets.model_directory
    return {name: kind.from_pretrained(folder(f"{name}-fashion")).float() for name, kind in classes.items()}


def pixels(name: str) -> np.ndarray:
    """The picture as that model gets it, (1, 3, H, W) in float32."""
    paths = {path.stem: path for path in npformer.assets.sample_pictures()}
    processor = npformer.AutoImageProcessor.from_pretrained(name)
    return processor(npformer.load_image(paths[PICTURE]), return_tensors="np")["pixel_values"]


def hooked(torch: Any, model: Any, pixel_values: np.ndarray) -> dict[str, np.ndarray]:
    """What every module gave when it was last called."""
    layers: dict[str, np.ndarray] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            if not isinstance(output, torch.Tensor):
                output = output["logits"] if hasattr(output, "logits") else output[0]
            if isinstance(output, torch.Tensor):
                layers[name] = output.numpy().copy()

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in model.named_modules()]
    with torch.inference_mode():
        model(torch.tensor(pixel_values))
    for handle in handles:
        handle.remove()
    return layers


def sampled(value: np.ndarray) -> np.ndarray:
    """Values from all over a layer, evenly spread."""
    return value.reshape(-1)[np.linspace(0, value.size - 1, SAMPLES).astype(int)]


def functions(torch: Any) -> dict[str, np.ndarray]:
    """A few functions of torch.nn.functional on random inputs of order one."""
    draw = np.random.default_rng(12).standard_normal
    inputs = {
        "x": draw((2, 4, 7, 6)), "weight": draw((6, 2, 3, 3)), "bias": draw(6), "mean": draw(4),
        "var": 0.5 + np.random.default_rng(13).random(4), "scale": draw(4), "shift": draw(4), "matrix": draw((5, 6)),
    }  # fmt: skip
    x, weight, bias, mean, var, scale, shift, matrix = map(torch.tensor, inputs.values())
    call = torch.nn.functional
    results = {
        "conv2d": call.conv2d(x, weight, bias, stride=2, padding=1, groups=2),
        "avg_pool2d": call.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False),
        "batch_norm": call.batch_norm(x, mean, var, scale, shift, eps=1e-3),
        "layer_norm": call.layer_norm(x, (7, 6), eps=1e-12),
        "gelu": call.gelu(x),
        "softmax": call.softmax(x, dim=1),
        "normalize": call.normalize(x, dim=1),
        "linear": call.linear(x, matrix),
    }
    return inputs | {f"{name}()": result.numpy() for name, result in results.items()}
