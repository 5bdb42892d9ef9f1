"""Train one of the small models that npformer ships, on Fashion-MNIST, with PyTorch and transformers' own classes.

    python notebooks/training/train.py efficientformer|efficientnet|swiftformer

The data are the four IDX files of Fashion-MNIST (on Debian: `apt-get install dataset-fashion-mnist`; elsewhere pass
`--data FOLDER`). Needs `torch==2.13.0` and `transformers==4.56.2`, the extra `parity`. The run is seeded, saves a
checkpoint every few minutes and continues from it when started again. It ends with what npformer ships, in `--output`:
`config.json`, `preprocessor_config.json`, `model.safetensors` in float16; `training.json`, which keeps the recipe and
the accuracy after every epoch, measured by PyTorch on the 10,000 test pictures; and `pictures/`, the first two test
pictures of every class.

The learning rate rises and falls in cycles: first on shifted and mirrored pictures, then, more gently, on pictures
that are only mirrored, since the test pictures are centred. `RECIPES` holds each family's.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import (
    EfficientNetConfig,
    EfficientNetForImageClassification,
    EfficientNetImageProcessor,
    SwiftFormerConfig,
    SwiftFormerForImageClassification,
    ViTImageProcessor,
)
from transformers.models.deprecated.efficientformer import (
    EfficientFormerConfig,
    EfficientFormerForImageClassification,
    EfficientFormerImageProcessor,
)

from npformer.evaluate.data import read_idx

LABELS = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]  # fmt: skip
NAMES: dict[str, Any] = {
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: index for index, label in enumerate(LABELS)},
}
MEAN, STD = 0.2860, 0.3530  # of the 60,000 training pictures, on a scale of 0 to 1
CHECKPOINT = "checkpoint.pt"


@dataclass
class Cycle:
    """One rise and fall of the learning rate: epochs, its peak, and by how many pixels pictures are shifted."""

    epochs: int
    peak: float
    shift: int


@dataclass
class Recipe:
    """How one family is trained: its model and processor, the pictures' side, the cycles, bfloat16 autocast or not."""

    build_model: Callable[[], torch.nn.Module]
    build_processor: Callable[[], Any]
    size: int
    cycles: list[Cycle]
    bfloat16: bool


def efficientformer() -> EfficientFormerForImageClassification:
    """Four stages, two of the last stage's blocks with attention; 742,658 parameters."""
    config = EfficientFormerConfig(
        depths=[1, 1, 2, 3],
        hidden_sizes=[16, 32, 64, 128],
        dim=128,
        hidden_size=128,
        num_meta3d_blocks=2,
        num_attention_heads=4,
        key_dim=16,
        attention_ratio=4,
        mlp_expansion_ratio=4,
        layer_scale_init_value=0.1,  # 1e-5 suits 300 epochs; a short run would hardly leave it
        layer_norm_eps=1e-5,
        distillation=False,
        image_size=224,
        **NAMES,
    )
    return EfficientFormerForImageClassification(config)


def efficientformer_processor() -> EfficientFormerImageProcessor:
    """Enlarge to 224 x 224 (bicubic) and normalise all three channels with the data's own mean and deviation."""
    return EfficientFormerImageProcessor(
        size={"height": 224, "width": 224},
        crop_size={"height": 224, "width": 224},
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    )


def efficientnet() -> EfficientNetForImageClassification:
    """B0 scaled down by the compound rule: half its width, half its depth; 663,530 parameters."""
    config = EfficientNetConfig(
        width_coefficient=0.5,
        depth_coefficient=0.5,
        hidden_dim=640,
        dropout_rate=0.2,
        drop_connect_rate=0.1,
        batch_norm_momentum=0.1,  # the default, 0.99, is how TensorFlow writes 0.01; PyTorch reads it as 0.99
        image_size=96,
        **NAMES,
    )
    model = EfficientNetForImageClassification(config)
    draw_weights(model)
    return model


def efficientnet_processor() -> EfficientNetImageProcessor:
    """Enlarge to 96 x 96 (bicubic) and normalise; `include_top` divides by image_std twice, hence its square root."""
    return EfficientNetImageProcessor(
        size={"height": 96, "width": 96},
        crop_size={"height": 96, "width": 96},
        resample=Image.Resampling.BICUBIC,
        image_mean=[MEAN] * 3,
        image_std=[math.sqrt(STD)] * 3,
    )


def swiftformer() -> SwiftFormerForImageClassification:
    """Four stages, each ending in a block with additive attention; two heads, as published; 826,764 parameters."""
    config = SwiftFormerConfig(
        depths=[2, 2, 4, 2],
        embed_dims=[24, 48, 80, 128],
        layer_scale_init_value=0.1,  # as for EfficientFormer
        image_size=96,
        **NAMES,
    )
    model = SwiftFormerForImageClassification(config)
    draw_weights(model)
    return model


def swiftformer_processor() -> ViTImageProcessor:
    """Enlarge to 96 x 96 (bilinear) and normalise all three channels with the data's own mean and deviation."""
    return ViTImageProcessor(size={"height": 96, "width": 96}, image_mean=[MEAN] * 3, image_std=[STD] * 3)


def draw_weights(model: torch.nn.Module) -> None:
    """Start from weights that a short run can learn from (He et al. 2015).

    transformers draws every convolution with deviation 0.02, EfficientNet's batch norm scales too: made for loading
    checkpoints, not for training from nothing.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)


RECIPES = {
    "efficientformer": Recipe(
        efficientformer, efficientformer_processor, 224,
        [Cycle(10, 2e-3, shift=16), Cycle(5, 1e-3, shift=0), Cycle(2, 6e-4, shift=0)], bfloat16=True,
    ),
    "efficientnet": Recipe(
        efficientnet, efficientnet_processor, 96,
        [Cycle(8, 3e-3, shift=7), Cycle(3, 1e-3, shift=0)], bfloat16=False,
    ),
    "swiftformer": Recipe(
        swiftformer, swiftformer_processor, 96,
        [Cycle(13, 2e-3, shift=7), Cycle(4, 1e-3, shift=0)], bfloat16=True,
    ),
}  # fmt: skip


def enlarge(pictures: np.ndarray, recipe: Recipe) -> torch.Tensor:
    """Resize grey pictures as the image processor does, once for the whole run: (N, 28, 28) -> (N, size, size)."""
    processor = recipe.build_processor()
    out = torch.empty(len(pictures), recipe.size, recipe.size, dtype=torch.uint8)
    for index, picture in enumerate(tqdm(pictures, desc="enlarging", unit="picture")):
        resized = Image.fromarray(picture).resize((recipe.size, recipe.size), processor.resample)
        out[index] = torch.from_numpy(np.asarray(resized).copy())
    check = processor(Image.fromarray(pictures[0]).convert("RGB"), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(to_pixel_values(out[:1]), check, rtol=1e-5, atol=1e-6)
    return out


def to_pixel_values(grey: torch.Tensor) -> torch.Tensor:
    """Scale, normalise and repeat over three channels: uint8 (B, H, W) -> float32 (B, 3, H, W)."""
    return ((grey.float() / 255 - MEAN) / STD).unsqueeze(1).repeat(1, 3, 1, 1)


def augment(grey: torch.Tensor, reach: int, generator: torch.Generator) -> torch.Tensor:
    """Mirror half of the pictures and shift each by up to `reach` pixels on black.

    A 28th of the side is one pixel of the original.
    """
    size = grey.shape[-1]
    padded = F.pad(grey, (reach,) * 4)
    mirror = torch.rand(len(grey), generator=generator) < 0.5
    shifts = torch.randint(0, 2 * reach + 1, (len(grey), 2), generator=generator)
    rows = []
    for picture, flip, (top, left) in zip(padded, mirror, shifts.tolist(), strict=True):
        picture = picture[top : top + size, left : left + size]
        rows.append(picture.flip(-1) if flip else picture)
    return torch.stack(rows)


def schedule(cycles: list[Cycle], step: int, steps_per_epoch: int) -> tuple[float, int]:
    """The learning rate and shift at a step: a warm-up over a cycle's first twentieth, then half a cosine to zero."""
    for cycle in cycles:
        total = cycle.epochs * steps_per_epoch
        if step < total:
            break
        step -= total
    warmup = max(1, total // 20)
    if step < warmup:
        return cycle.peak * (step + 1) / warmup, cycle.shift
    return cycle.peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))), cycle.shift


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Weight matrices decay; biases, norms, layer scales and attention biases do not."""
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        spared = parameter.ndim < 2 or "layer_scale" in name or name.endswith("attention_biases")
        (others if spared else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


@torch.no_grad()
def accuracy(model: torch.nn.Module, pictures: torch.Tensor, labels: torch.Tensor, amp: bool) -> float:
    """Top-1 accuracy in percent."""
    model.eval()
    right = 0
    for start in range(0, len(pictures), 100):
        pixel_values = to_pixel_values(pictures[start : start + 100]).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            logits = model(pixel_values).logits
        right += int((logits.argmax(-1) == labels[start : start + 100]).sum())
    return 100 * right / len(pictures)


def train(args: argparse.Namespace) -> None:
    recipe = RECIPES[args.family]
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    train_labels = torch.from_numpy(read_idx(args.data / "train-labels-idx1-ubyte.gz").astype(np.int64))
    test_labels = torch.from_numpy(read_idx(args.data / "t10k-labels-idx1-ubyte.gz").astype(np.int64))
    train_pictures = enlarge(read_idx(args.data / "train-images-idx3-ubyte.gz"), recipe)
    test_pictures = enlarge(read_idx(args.data / "t10k-images-idx3-ubyte.gz"), recipe)

    model = recipe.build_model().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(parameter_groups(model, args.weight_decay))
    steps_per_epoch = len(train_labels) // args.batch_size
    total = sum(cycle.epochs for cycle in recipe.cycles) * steps_per_epoch
    step, history, seconds = 0, [], 0.0
    checkpoint = args.output / CHECKPOINT
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, history, seconds = state["step"], state["history"], state["seconds"]
        print(f"continuing from step {step} of {total}")

    started = time.perf_counter() - seconds
    order: torch.Tensor | None = None
    progress = tqdm(total=total, initial=step, unit="step")
    while step < total:
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0 or order is None:
            order = torch.randperm(
                len(train_labels), generator=torch.Generator().manual_seed(args.seed * 1000 + epoch)
            )
        chosen = order[position * args.batch_size : (position + 1) * args.batch_size]
        # One generator a step: a continued run draws what an unbroken one would have drawn.
        generator = torch.Generator().manual_seed(args.seed * 1_000_000 + step)
        learning_rate, shift = schedule(recipe.cycles, step, steps_per_epoch)
        pixel_values = to_pixel_values(augment(train_pictures[chosen], shift, generator))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            logits = model(pixel_values.to(memory_format=torch.channels_last)).logits
        loss = F.cross_entropy(logits.float(), train_labels[chosen], label_smoothing=args.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        progress.update()
        progress.set_postfix(loss=f"{loss.item():.3f}")

        epoch_ended = step % steps_per_epoch == 0
        if epoch_ended:
            top1 = accuracy(model, test_pictures, test_labels, recipe.bfloat16)
            history.append({"epoch": step // steps_per_epoch, "loss": loss.item(), "test_top1": top1})
            tqdm.write(f"epoch {step // steps_per_epoch}: {top1:.2f} % of the test pictures")
        if epoch_ended or step % 300 == 0:
            seconds = time.perf_counter() - started
            partial = checkpoint.with_suffix(".partial")
            torch.save(
                {
                    "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                    "step": step, "history": history, "seconds": seconds,
                },
                partial,
            )  # fmt: skip
            partial.replace(checkpoint)
    export(args, recipe, model, history, seconds, test_pictures, test_labels)


def export(args, recipe, model, history, seconds, test_pictures, test_labels) -> None:
    """Write config, processor and float16 weights; measure PyTorch's accuracy on exactly those weights."""
    model.eval()
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(tensors, args.output / "model.safetensors", metadata={"format": "pt"})
    model.config.torch_dtype = "float16"
    model.config.architectures = [type(model).__name__]
    (args.output / "config.json").write_text(model.config.to_json_string())
    (args.output / "preprocessor_config.json").write_text(recipe.build_processor().to_json_string())

    rounded = recipe.build_model()
    rounded.load_state_dict(load_file(args.output / "model.safetensors"))  # widens to float32
    final = accuracy(rounded, test_pictures, test_labels, amp=False)
    record = {
        "cycles": [asdict(cycle) for cycle in recipe.cycles], "batch_size": args.batch_size, "size": recipe.size,
        "weight_decay": args.weight_decay, "label_smoothing": args.label_smoothing,
        "bfloat16": recipe.bfloat16, "seed": args.seed,
        "hours": round(seconds / 3600, 2), "torch": torch.__version__.split("+")[0], "test_top1_float16": final,
        "parameters": sum(p.numel() for p in model.parameters()), "history": history,
    }  # fmt: skip
    (args.output / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    save_pictures(args.data, args.output / "pictures")
    print(f"{final:.2f} % of the test pictures with the float16 weights, computed in float32")


def save_pictures(data: Path, folder: Path) -> None:
    """Write the first two test pictures of every class as PNG, and `labels.json`, which says what each shows."""
    folder.mkdir(exist_ok=True)
    pictures, labels = read_idx(data / "t10k-images-idx3-ubyte.gz"), read_idx(data / "t10k-labels-idx1-ubyte.gz")
    truth = {}
    for label, name in enumerate(LABELS):
        for number, index in enumerate(np.flatnonzero(labels == label)[:2], start=1):
            file_name = f"{name.lower().replace('/', '-').replace(' ', '-')}-{number}.png"
            Image.fromarray(pictures[index]).save(folder / file_name, optimize=True)
            truth[file_name] = name
    (folder / "labels.json").write_text(json.dumps(truth, indent=1) + "\n")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=RECIPES)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--output", type=Path, help="default: FAMILY-fashion")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--label-smoothing", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    args.output = args.output or Path(f"{args.family}-fashion")
    return args


if __name__ == "__main__":
    train(parse_args())
