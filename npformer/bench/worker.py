"""One contestant, alone in a process: load the model, run it, and report the times.

`python -m npformer.bench.worker JOB`. The result holds the milliseconds of every run, the process's peak memory (which
includes the 4 MB of importing this package, whichever contestant is timed) and, for our fused model, the breakdown.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..ops import Array
from . import process
from .contestants import ONNXRUNTIME, OURS, TORCH, UNFUSED
from .timing import LEAST_RUNS, peak_megabytes, time_runs

ATTENTION = "attention"  # EfficientFormer's, by itself: `--scaling` compares it with a whole SwiftFormer


@dataclass
class Job:
    """A contestant's task.

    model: a directory that `save_pretrained` wrote, or for ONNX Runtime an `.onnx` file. shape: that of its input.
    seconds: how long to time it. logits: the `.npy` file to write its output to, if wanted.
    """

    contestant: str
    model: str
    shape: tuple[int, ...]
    threads: int
    seconds: float
    logits: str | None = None

    def run(self, name: str) -> dict[str, Any]:
        """Run the job in a process of its own; errors call the model `name`. Raises ChildProcessError."""
        return process.ask("worker", asdict(self), self.threads, f"{self.contestant} on {name}")


def work(job: Job) -> dict[str, Any]:
    """Run the job in this process."""
    x = np.random.default_rng(7).standard_normal(job.shape, np.float32)
    run = LOADERS[job.contestant](job, x)
    answer: dict[str, Any] = {"milliseconds": time_runs(run, job.seconds), "peak_mb": peak_megabytes()}
    if job.logits:
        np.save(job.logits, run())
    if job.contestant == OURS:
        answer["profile"] = profile_runs(run, job.seconds / 2)
    return answer


def profile_runs(run: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """Profile a fused model: the number of runs, their seconds, and for each kind its seconds, flops and bytes.

    The seconds of a kind are summed over all threads.
    """
    from ..fast.threads import profile

    runs, begun = 0, time.perf_counter()
    with profile() as found:
        while runs < LEAST_RUNS or time.perf_counter() - begun < seconds:
            run()
            runs += 1
    elapsed = time.perf_counter() - begun
    kinds = {kind: (spent, found.flops[kind], found.bytes[kind]) for kind, spent in found.seconds.items()}
    return {"runs": runs, "seconds": elapsed, "kinds": kinds}


def _npformer(job: Job, x: Array) -> Callable[[], Array]:
    import npformer

    npformer.set_num_threads(job.threads)
    model = npformer.fuse(npformer.AutoModelForImageClassification.from_pretrained(job.model))
    return lambda: model(x).logits


def _unfused(job: Job, x: Array) -> Callable[[], Array]:
    from ..models.auto import AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(job.model)
    return lambda: model(x).logits


def _torch(job: Job, x: Array) -> Callable[[], Array]:
    import torch

    from .transformers_model import load

    torch.set_num_threads(job.threads)
    model, tensor = load(Path(job.model)), torch.tensor(x)

    def run() -> Array:
        with torch.inference_mode():
            return model(tensor).logits.numpy()

    return run


def _onnxruntime(job: Job, x: Array) -> Callable[[], Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = onnxruntime.InferenceSession(job.model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["logits"], {"pixel_values": x})[0]


def _attention(job: Job, x: Array) -> Callable[[], Array]:
    from ..models.efficientformer import EfficientFormerConfig, EfficientFormerSelfAttention

    side = round(x.shape[1] ** 0.5)
    config = EfficientFormerConfig.for_variant("efficientformer-l1", resolution=side)
    layer = EfficientFormerSelfAttention(config)
    generator = np.random.default_rng(0)
    for name in ("qkv", "projection"):
        linear = getattr(layer, name)
        linear.weight = generator.standard_normal(linear.weight.shape, np.float32) / linear.weight.shape[1] ** 0.5
    layer.attention_biases = generator.standard_normal(layer.attention_biases.shape, np.float32)
    return lambda: layer(x)[0]


LOADERS: dict[str, Callable[[Job, Array], Callable[[], Array]]] = {
    OURS: _npformer,
    UNFUSED: _unfused,
    TORCH: _torch,
    ONNXRUNTIME: _onnxruntime,
    ATTENTION: _attention,
}

if __name__ == "__main__":
    request = process.request()
    process.answer(work(Job(**{**request, "shape": tuple(request["shape"])})))
