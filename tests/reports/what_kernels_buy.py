"""What each fast kernel buys over its readable twin, on one thread: `python -m tests.reports.what_kernels_buy`.

The twins are timed in turn, on shapes of EfficientFormer-L1 and EfficientNet-B0; medians of 15 runs each.
"""

import time

import numpy as np

import npformer
from npformer import ops
from npformer.fast import kernels, threads
from npformer.fast.modules import FusedMeta4D
from npformer.summary import align
from tests.support import CASES, fill

RUNS = 15


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def twins():
    """(what, shape, readable, fast): two functions without arguments that compute the same."""
    for name, size, function in (("GELU", (3136, 192), ops.gelu), ("SiLU", (12544, 96), ops.silu)):
        x, act = draw(*size), kernels.activation(function)
        out = np.empty_like(x)
        yield name, size, lambda x=x, f=function: f(x), lambda x=x, a=act, o=out: a.apply(x, o)
    for channels, side, kernel, stride in ((144, 56, 3, 1), (240, 28, 5, 1), (96, 112, 3, 2)):
        x, weight = draw(1, channels, side, side), draw(channels, 1, kernel, kernel)
        half = kernel // 2
        pads = (half, half), (half, half)
        planes, targets = kernels.column_planes((1, side, side, channels), pads, stride, x.dtype)
        last, flat = kernels.channels_last(x), np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0))
        out = np.empty((1, side // stride, side // stride, channels), x.dtype)

        def fast(planes=planes, targets=targets, last=last, flat=flat, stride=stride, out=out):
            for columns, target in targets:
                np.copyto(target, last[:, :, columns])
            kernels.depthwise(planes, flat, stride, out)

        what = f"depthwise {kernel}x{kernel}" + (f", stride {stride}" if stride > 1 else "")
        yield (
            what, x.shape, lambda x=x, w=weight, s=stride, p=half: ops.depthwise_conv2d(x, w, None, s, p), fast
        )  # fmt: skip
    x, weight, bias = draw(1, 3, 224, 224), draw(24, 3, 3, 3), draw(24)
    flat = np.ascontiguousarray(weight.transpose(1, 2, 3, 0).reshape(27, 24))
    yield (
        "3x3 convolution of a picture", x.shape, lambda: np.maximum(ops.conv2d(x, weight, bias, 2, 1), 0),
        lambda: kernels.conv2d(x, flat, bias, (3, 3), (2, 2), ((1, 1), (1, 1)), kernels.activation(ops.relu)),
    )  # fmt: skip
    x, scale = draw(1, 48, 56, 56), np.full(48, 0.5, np.float32)
    around = np.tile(scale / 9, (3, 3, 1)).astype(np.float32)
    around[1, 1] += 1 - scale
    last, out = kernels.channels_last(x), np.empty((1, 56, 56, 48), np.float32)
    yield (
        "pooling mixer", x.shape, lambda: x + scale[:, None, None] * ops.pool_mixer(x),
        lambda: kernels.depthwise(
            kernels.strip_of_means(last[0], slice(0, 56))[None, None], around, 1, out, "pooling"
        ),
    )  # fmt: skip
    for case, side in (("l1", 224), ("efficientnet-b0", 224), ("swiftformer-xs", 224)):
        model = fill(CASES[case].model(), np.float32)
        fused, picture = npformer.fuse(model), draw(1, 3, side, side)
        if case == "l1":
            blocks = [m.encoder.intermediate_stages[0].meta4D_layers.blocks[0] for m in bare(model, fused)]
            assert isinstance(blocks[1], FusedMeta4D)
            state = draw(1, 48, 56, 56)
            yield "a whole Meta4D block", state.shape, *(lambda block=block, x=state: block(x) for block in blocks)
        yield f"a whole {case}", picture.shape, *(lambda m=m, x=picture: m(x) for m in (model, fused))


def bare(*models):
    return [getattr(model, model.base_model_prefix) for model in models]


def main():
    rows = [["", "shape", "readable", "fast", "times as fast"]]
    npformer.set_num_threads(1)
    with threads.sharing():  # holds BLAS to one thread, too
        for what, shape, readable, fast in twins():
            seconds = [[], []]
            for run in range(RUNS + 2):
                for side, function in enumerate((readable, fast)):
                    started = time.perf_counter()
                    function()
                    if run >= 2:
                        seconds[side].append(time.perf_counter() - started)
            slow, quick = (1000 * np.median(runs) for runs in seconds)
            size = " x ".join(map(str, shape))
            rows.append([what, size, f"{slow:.2f} ms", f"{quick:.2f} ms", f"{slow / quick:.1f}"])
    print("\n".join(align(rows, right={2, 3, 4})))


if __name__ == "__main__":
    main()
