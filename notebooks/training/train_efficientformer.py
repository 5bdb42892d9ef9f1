"""Train the small EfficientFormer that npformer ships, on Fashion-MNIST, with PyTorch and transformers' own classes.

    python notebooks/training/train_efficientformer.py

The data are the four IDX files of Fashion-MNIST (on Debian: `apt-get install dataset-fashion-mnist`; elsewhere pass
`--data FOLDER`). Needs `torch==2.13.0` and `transformers==4.56.2`, the extra `parity`. The run is seeded, saves a
checkpoint every few minutes and continues from it when started again. It ends with what npformer ships, in `--output`:
`config.json`, `preprocessor_config.json`, `model.safetensors` in float16; `training.json`, which keeps the recipe and
the accuracy after every epoch, measured by PyTorch on the 10,000 test pictures; and `pictures/`, the first two test
pictures of every class.

Three cycles of the learning rate (`CYCLES`): ten epochs on shifted and mirrored pictures, then five and two gentler
ones that only mirror, since the test pictures are centred. About 7 minutes an epoch on 2 CPU cores with bfloat16
matrix instructions; twice that without.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers.models.deprecated.efficientformer import (
    EfficientFormerConfig,
    EfficientFormerForImageClassification,
    EfficientFormerImageProcessor,
)

LABELS = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]  # fmt: skip
MEAN, STD = 0.2860, 0.3530  # of the 60,000 training pictures, on a scale of 0 to 1
SIZE = 224  # 224 / 32 = 7: the attention blocks see 7 x 7 tokens, as in EfficientFormer-L1
CHECKPOINT = "checkpoint.pt"


@dataclass
class Cycle:
    """One rise and fall of the learning rate: epochs, its peak, and by how many pixels pictures are shifted."""

    epochs: int
    peak: float
    shift: int


CYCLES = [Cycle(10, 2e-3, shift=16), Cycle(5, 1e-3, shift=0), Cycle(2, 6e-4, shift=0)]


def build_model() -> EfficientFormerForImageClassification:
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
        image_size=SIZE,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    return EfficientFormerForImageClassification(config)


def build_processor() -> EfficientFormerImageProcessor:
    """Enlarge to 224 x 224 (bicubic) and normalise all three channels with the data's own mean and deviation."""
    return EfficientFormerImageProcessor(
        size={"height": SIZE, "width": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    )


def read_idx(path: Path) -> np.ndarray:
    """Read one gzipped IDX file of unsigned bytes: 2 zero bytes, type 8, rank, big-endian sizes, data."""
    with gzip.open(path) as file:
        raw = file.read()
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def enlarge(pictures: np.ndarray) -> torch.Tensor:
    """Resize grey pictures as the image processor does, once for the whole run: (N, 28, 28) -> (N, 224, 224)."""
    out = torch.empty(len(pictures), SIZE, SIZE, dtype=torch.uint8)
    for index, picture in enumerate(tqdm(pictures, desc="enlarging", unit="picture")):
        resized = Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        out[index] = torch.from_numpy(np.asarray(resized).copy())
    check = build_processor()(Image.fromarray(pictures[0]).convert("RGB"), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(to_pixel_values(out[:1]), check)
    return out


def to_pixel_values(grey: torch.Tensor) -> torch.Tensor:
    """Scale, normalise and repeat over three channels: uint8 (B, H, W) -> float32 (B, 3, H, W)."""
    return ((grey.float() / 255 - MEAN) / STD).unsqueeze(1).repeat(1, 3, 1, 1)


def augment(grey: torch.Tensor, reach: int, generator: torch.Generator) -> torch.Tensor:
    """Mirror half of the pictures and shift each by up to `reach` pixels (8 are one of the original 28) on black."""
    padded = F.pad(grey, (reach,) * 4)
    mirror = torch.rand(len(grey), generator=generator) < 0.5
    shifts = torch.randint(0, 2 * reach + 1, (len(grey), 2), generator=generator)
    rows = []
    for picture, flip, (top, left) in zip(padded, mirror, shifts.tolist(), strict=True):
        picture = picture[top : top + SIZE, left : left + SIZE]
        rows.append(picture.flip(-1) if flip else picture)
    return torch.stack(rows)


def schedule(step: int, steps_per_epoch: int) -> tuple[float, int]:
    """The learning rate and shift at a step: a warm-up over a cycle's first twentieth, then half a cosine to zero."""
    for cycle in CYCLES:
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
    decayed = [p for n, p in model.named_parameters() if p.ndim >= 2 and not n.endswith("attention_biases")]
    others = [p for n, p in model.named_parameters() if p.ndim < 2 or n.endswith("attention_biases")]
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
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    train_labels = torch.from_numpy(read_idx(args.data / "train-labels-idx1-ubyte.gz").astype(np.int64))
    test_labels = torch.from_numpy(read_idx(args.data / "t10k-labels-idx1-ubyte.gz").astype(np.int64))
    train_pictures = enlarge(read_idx(args.data / "train-images-idx3-ubyte.gz"))
    test_pictures = enlarge(read_idx(args.data / "t10k-images-idx3-ubyte.gz"))

    model = build_model().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(parameter_groups(model, args.weight_decay))
    steps_per_epoch = len(train_labels) // args.batch_size
    total = sum(cycle.epochs for cycle in CYCLES) * steps_per_epoch
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
        learning_rate, shift = schedule(step, steps_per_epoch)
        pixel_values = to_pixel_values(augment(train_pictures[chosen], shift, generator))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
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
            top1 = accuracy(model, test_pictures, test_labels, args.bfloat16)
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
    export(args, model, history, seconds, test_pictures, test_labels)


def export(args, model, history, seconds, test_pictures, test_labels) -> None:
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
    (args.output / "preprocessor_config.json").write_text(build_processor().to_json_string())

    rounded = build_model()
    rounded.load_state_dict(load_file(args.output / "model.safetensors"))  # widens to float32
    final = accuracy(rounded, test_pictures, test_labels, amp=False)
    record = {
        "cycles": [asdict(cycle) for cycle in CYCLES], "batch_size": args.batch_size,
        "weight_decay": args.weight_decay, "label_smoothing": args.label_smoothing,
        "bfloat16": args.bfloat16, "seed": args.seed,
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
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--output", type=Path, default=Path("efficientformer-fashion"))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--label-smoothing", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


if __name__ == "__main__":
    train(parse_args())
