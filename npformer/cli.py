"""The command line `npformer …`: classify pictures, list models, record and compare forward passes."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__, ops
from .assets import DEFAULT_MODEL, is_hub_name, model_directory, sample_pictures
from .assets.imagenet import class_names
from .checkpoint import read_json
from .checkpoint.atomic import replacing, write_text
from .checkpoint.sources import mmpretrain
from .fuse import fuse
from .image import BaseImageProcessor
from .models.auto import AutoImageProcessor
from .models.pretrained import PreTrainedModel
from .models.registry import VARIANTS, find_variant, get_model, image_processor, list_models, model_config
from .picture import load_image
from .summary import align, format_summary, summarize
from .trace import record

BATCH = 16  # pictures per forward pass; more would only take more memory
TOP = 3  # predictions that `classify` prints
SHOWN = 18  # index of the shipped picture that is `explain`'s default


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code, by default 0, or 2 with one sentence on stderr for bad input."""
    args = _parser().parse_args(arguments)
    code = 0
    try:
        code = args.run(args) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (`| head`) closed the pipe; silence Python's error at exit too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    except (ValueError, TypeError, IndexError, OSError, ImportError) as error:
        print(f"npformer: error: {error}", file=sys.stderr)
        return 2
    return code


def classify(args: argparse.Namespace) -> None:
    """Classify pictures in batches and print the predictions, best first; or classify a whole folder into a file."""
    if args.recursive or args.output:
        return _classify_folder(args)
    started = time.perf_counter()
    truth = {} if args.pictures else sample_pictures()
    pictures = [Path(name) for name in args.pictures] or list(truth)
    if is_random(args.model):
        raise ValueError(
            f"--model {args.model} has no weights here and would only guess; give a directory that holds some"
        )
    model, processor = load_model(args.model)
    labels = class_names([name for _, name in sorted(model.config.id2label.items())])
    if not 1 <= args.top <= len(labels):
        raise ValueError(f"--top must lie between 1 and {len(labels)}, the number of labels, got {args.top}")
    fused = fuse(model)
    results = []
    for start in range(0, len(pictures), BATCH):
        batch = pictures[start : start + BATCH]
        begun = time.perf_counter()
        pixel_values = processor([load_image(path) for path in batch], return_tensors="np")["pixel_values"]
        probs = ops.softmax(fused(pixel_values).logits)
        milliseconds = (time.perf_counter() - begun) * 1000 / len(batch)
        for path, row in zip(batch, probs, strict=True):
            best = np.argsort(-row, kind="stable")[: args.top]
            guesses = [{"label": labels[i], "index": int(i), "probability": float(row[i])} for i in best]
            results.append(
                {"picture": str(path), "truth": truth.get(path), "predictions": guesses, "milliseconds": milliseconds}
            )
    if args.json:
        print(json.dumps(results, indent=2))
    else:
        _print_predictions(results, args.model, model, time.perf_counter() - started)


def _classify_folder(args: argparse.Namespace) -> None:
    from .evaluate import command  # here alone: most commands need none of it

    if not (args.recursive and args.output and len(args.pictures) == 1 and Path(args.pictures[0]).is_dir()):
        raise ValueError("--recursive takes one folder as PICTURE, and -o FILE to write results to")
    if args.json or args.top != TOP:
        raise ValueError("--recursive writes JSON Lines with five guesses each; leave out --json and --top")
    if is_random(args.model):
        raise ValueError(
            f"--model {args.model} has no weights here and would only guess; give a directory that holds some"
        )
    command.classify_folder(args)


def evaluate(args: argparse.Namespace) -> None:
    """Measure a model's accuracy on a data set."""
    from .evaluate import command  # here alone: most commands need none of it

    if is_random(args.model):
        raise ValueError(
            f"--model {args.model} has no weights here and would only guess; give a directory that holds some"
        )
    command.run(args)


def summary(args: argparse.Namespace) -> None:
    """Print a model's layers."""
    if args.size is not None and args.size < 1:
        raise ValueError(f"--size must be at least 1, got {args.size}")
    model, processor = load_model(args.model, args.size, weights=False)
    size = args.size or processor_size(processor)
    table = format_summary(summarize(model, size, size))
    print(f"{args.model} on one picture of {size} x {size}\n\n{table}")


def record_trace(args: argparse.Namespace) -> None:
    """Record every value of one forward pass."""
    if is_random(args.model):
        print(f"npformer: {args.model} has no weights here; they are random, from seed 0", file=sys.stderr)
    model, processor = load_model(args.model)
    model = model if model.dtype == np.dtype(args.dtype) else model.astype(args.dtype)
    pixel_values = processor(load_image(args.picture), return_tensors="np")["pixel_values"]
    trace = record(model, pixel_values)
    trace.save(args.output)
    print(f"{args.output}: {len(trace)} values in the order they were computed, {trace.nbytes / 1e6:.1f} MB")


def explain(args: argparse.Namespace) -> None:
    """Write a page, or a single figure, that shows how a model processes a picture."""
    from . import explain as walks  # here alone: most commands need none of it

    output = Path(args.output)
    if output.suffix.lower() not in (".html", ".png"):
        raise ValueError(f"--output must be a file that ends in .html or .png, got {args.output}")
    if not output.absolute().parent.is_dir():
        raise FileNotFoundError(f"--output {args.output} lies in a folder that does not exist")
    if is_random(args.model):
        print(f"npformer: {args.model} has no weights here; they are random, from seed 0", file=sys.stderr)
    name = f"{args.model} with random weights" if is_random(args.model) else args.model
    picture = Path(args.picture) if args.picture else list(sample_pictures())[SHOWN]
    image = load_image(picture)
    walk = walks.walk(*load_model(args.model), image, name)
    if output.suffix.lower() == ".html":
        write_text(output, walks.page(walk))
    else:
        with replacing(output) as partial:
            walks.overview(walk).save(partial, "PNG", optimize=True)
    label, share = walk.guesses[0]
    size = output.stat().st_size / 1024
    print(f"{args.output}: {picture.name} in {len(walk.steps)} steps to {label} ({share:.1%}), {size:.0f} KB")


def models(args: argparse.Namespace) -> None:
    """Print the models that can be named."""
    names = list_models(args.pattern)
    if not names:
        raise ValueError(f"PATTERN must match a model, got {args.pattern!r}; `npformer models` lists them all")
    rows = [_model_row(name) for name in names]
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    head = ["name", "parameters", "multiply-adds", "input", "top-1 %", "data set"]
    lines = [
        [
            row["name"], f"{row['parameters']:,}", f"{row['multiply_adds'] / 1e9:.3f} G",
            f"{row['image_size']} x {row['image_size']}", f"{row['top1']:.2f}".removesuffix("0"), row["data_set"],
        ]
        for row in rows
    ]  # fmt: skip
    print("\n".join(align([head, *lines], right={1, 2, 3, 4})))
    print(
        "\nImageNet-1k: as published, weights not included (sources: npformer/models/registry.py)."
        "\nFashion-MNIST: the shipped models, measured on its 10,000 test pictures."
    )


def _model_row(name: str) -> dict[str, Any]:
    """Return a model's row in the table: published figures, or, for a shipped model, its own."""
    if name in VARIANTS:
        variant = VARIANTS[name]
        figures = {"parameters": variant.parameters, "multiply_adds": variant.multiply_adds}
        return {
            "name": name, **figures, "image_size": variant.image_size, "top1": variant.top1, "data_set": "ImageNet-1k"
        }  # fmt: skip
    model, processor = load_model(name)
    size = processor_size(processor)
    total = summarize(model, size, size)[0]
    top1 = read_json(model_directory(name) / "training.json")["test_top1_float16"]
    return {
        "name": name, "parameters": total.parameters, "multiply_adds": total.multiply_adds, "image_size": size,
        "top1": top1, "data_set": "Fashion-MNIST",
    }  # fmt: skip


def convert(args: argparse.Namespace) -> None:
    """Convert a checkpoint of any source into a model directory."""
    from .convert import pipeline, verify  # here alone: most commands need none of it

    labels = pipeline.read_labels(Path(args.labels)) if args.labels else None
    checkpoint = pipeline.load_checkpoint(args.source, source=args.source_name, variant=args.variant, labels=labels)
    print("\n".join(pipeline.describe(checkpoint)))
    digest = checkpoint.save(Path(args.directory), args.dtype)
    arrays = len(checkpoint.model.state_dict())
    print(
        f"wrote       {args.directory}: {arrays} arrays in {args.dtype}, model.safetensors has SHA-256\n{digest:>76}"
    )
    if args.verify:
        verify.reread(checkpoint, Path(args.directory), args.dtype)
        result = verify.largest_difference(checkpoint, Path(args.directory))
        comparison = (
            result if isinstance(result, str) else f"largest difference {result[0]:.1e}, logits up to {result[1]:.3g}"
        )
        print(f"verified    read back equal; {comparison}")


def parity(args: argparse.Namespace) -> int:
    """Compare a port's values with a model's; return 0 where they are equal, 1 where they are not."""
    from .parity import command  # here alone: most commands need none of it

    return command.run(args)


def bench(args: argparse.Namespace) -> None:
    """Time models, optionally against PyTorch and ONNX Runtime."""
    from .bench import command  # here alone: most commands need none of it

    command.run(args)


def load_model(
    name: str, size: int | None = None, *, weights: bool = True
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Return a classifier and its image processor by name or directory; a variant's weights are random, from seed 0.

    `size` builds a variant for pictures of that side instead of its own. Without `weights` nothing is downloaded from
    the hub for a name that is also a variant's.
    """
    stored = not is_random(name) if weights else find_variant(name) is None
    if stored:
        return get_model(name, pretrained=True), AutoImageProcessor.from_pretrained(name)
    config, architecture = model_config(name, **({} if size is None else {"image_size": size}))
    return architecture(config, seed=0), image_processor(name, size)  # type: ignore[call-arg]


def is_random(name: str) -> bool:
    """Return whether a name denotes a network without weights: a variant, but no repository on the hub."""
    return find_variant(name) is not None and not is_hub_name(name) and name not in mmpretrain.WEIGHTS


def processor_size(processor: BaseImageProcessor) -> int:
    """Return the side of the pictures that a processor returns."""
    size = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else processor.size
    return int((size or processor.size)["height"])


def _print_predictions(results: list[dict[str, Any]], name: str, model: PreTrainedModel, seconds: float) -> None:
    full = "█" if _can_print("█") else "#"
    paths = [Path(result["picture"]).name for result in results]
    known = [result["truth"] for result in results if result["truth"]]
    head = ["picture", "truth", "prediction", "", "then", "ms"]
    lines = []
    for path, result in zip(paths, results, strict=True):
        first, *others = result["predictions"]
        bar = (full * round(first["probability"] * 10)).ljust(10)
        then = ", ".join(f"{guess['label']} {guess['probability']:.1%}" for guess in others)
        mark = "" if not result["truth"] else "  " if first["label"] == result["truth"] else "! "
        lines.append(
            [
                path,
                result["truth"] or "",
                mark + first["label"],
                f"{bar} {first['probability']:6.1%}",
                then,
                f"{result['milliseconds']:.1f}",
            ]
        )
    keep = [i for i in range(6) if any(line[i] for line in lines)]
    shown = [[line[i] for i in keep] for line in [head, *lines]]
    print("\n".join(align(shown, right={len(keep) - 1})))
    right = sum(result["predictions"][0]["label"] == result["truth"] for result in results)
    score = f"{right} of {len(known)} right; " if known else ""
    mean = sum(result["milliseconds"] for result in results) / len(results)
    print(
        f"\n{score}{len(results)} picture{'s' * (len(results) > 1)}, {mean:.1f} ms each, {seconds:.2f} s in all, "
        f"with {name} ({model.num_parameters():,} parameters)"
    )


def _can_print(character: str) -> bool:
    try:
        character.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="npformer",
        description="EfficientFormer, EfficientNet and SwiftFormer in NumPy: classify pictures, look inside.",
    )
    parser.add_argument("--version", action="version", version=f"npformer {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser("classify", help="say what pictures show")
    command.add_argument("pictures", nargs="*", metavar="PICTURE", help="picture files (default: the shipped samples)")
    command.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help="default: %(default)s")
    command.add_argument("--top", type=int, default=TOP, metavar="K", help="guesses to show (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.add_argument("--recursive", action="store_true", help="PICTURE is a folder: take all that is below it")
    command.add_argument(
        "-o", "--output", metavar="FILE", help="with --recursive: JSON Lines, appended to if it exists"
    )
    command.add_argument(
        "--workers", type=int, default=1, metavar="N", help="with --recursive: processes to share work"
    )
    command.set_defaults(run=classify)

    command = commands.add_parser(
        "evaluate",
        help="count how often a model is right on a data set",
        description="DATA is a folder of class folders, a folder with --labels, an .npz, or a folder of IDX files. "
        "What is done is kept: after Ctrl-C the same command goes on.",
    )
    command.add_argument("data", metavar="DATA", help="where the pictures are")
    command.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help="default: %(default)s")
    command.add_argument("--labels", metavar="FILE", help="lines of a path below DATA and a label (val.txt)")
    command.add_argument(
        "--batch", type=int, default=64, metavar="N", help="pictures at a time (default: %(default)s)"
    )
    command.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    command.add_argument("--dask", metavar="ADDRESS", help="of a Dask scheduler whose workers are to do it")
    command.add_argument("--limit", type=int, metavar="N", help="take N pictures, spread evenly over DATA")
    command.add_argument("--seed", type=int, metavar="N", help="with --limit: draw them at random instead")
    command.add_argument("--crop-pct", type=float, metavar="SHARE", help="of the shorter side that the crop keeps")
    command.add_argument("--image-size", type=int, metavar="N", help="side of the pictures (default: the model's)")
    command.add_argument("--tta", choices=("flip",), help="average with the mirror image")
    command.add_argument("--per-class", action="store_true", help="print a line for each class")
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")
    command.add_argument(
        "--output", metavar="FILE", help="keep each picture's result: JSON Lines, continued if it exists"
    )
    command.add_argument("--errors", metavar="FILE", help="write a page of the worst mistakes: .html")
    command.add_argument(
        "--plot", metavar="FILE", help="draw the confusion matrix and calibration: .png, .svg or .pdf"
    )
    command.set_defaults(run=evaluate)

    command = commands.add_parser("models", help="list the models that have a name")
    command.add_argument("pattern", nargs="?", metavar="PATTERN", help='such as "swiftformer*" (default: all)')
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.set_defaults(run=models)

    names = "directory, shipped name, or a variant's name (see `npformer models`)"
    command = commands.add_parser("summary", help="list a model's layers, parameters and multiply-adds")
    command.add_argument(
        "model",
        nargs="?",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=names,
    )
    command.add_argument("--size", type=int, metavar="N", help="side of the picture in pixels (default: the model's)")
    command.set_defaults(run=summary)

    command = commands.add_parser("convert", help="turn a checkpoint of another library into a model directory")
    command.add_argument("source", metavar="SOURCE", help="a weight file, or a directory with one")
    command.add_argument("directory", metavar="OUT_DIR", help="where to write; new or empty")
    command.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="default: %(default)s")
    command.add_argument(
        "--source", dest="source_name", metavar="NAME", help="whose names the weights have: timm, ..."
    )
    command.add_argument(
        "--variant", metavar="NAME", help="the network, by any name of `npformer models` or its source"
    )
    command.add_argument("--labels", metavar="FILE", help="names of the classes: one a line, or JSON")
    command.add_argument("--verify", action="store_true", help="read back, and compare with the source's own library")
    command.set_defaults(run=convert)

    command = commands.add_parser("record", help="save every value of one forward pass as safetensors")
    command.add_argument("model", metavar="MODEL", help=names)
    command.add_argument("picture", metavar="PICTURE", help="a picture file")
    command.add_argument("-o", "--output", required=True, metavar="FILE", help="where to write the trace")
    command.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="default: %(default)s")
    command.set_defaults(run=record_trace)

    command = commands.add_parser("explain", help="write a page that walks a picture through a model")
    command.add_argument("picture", nargs="?", metavar="PICTURE", help="a picture file (default: a shipped one)")
    command.add_argument("--model", default=DEFAULT_MODEL, metavar="MODEL", help=f"{names} (default: %(default)s)")
    command.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="the page (.html), or a short version as a picture (.png)",
    )
    command.set_defaults(run=explain)

    command = commands.add_parser(
        "parity",
        help="find the op in which a port goes wrong, and why",
        description="Compare the values that a port computed with a model's, or two dumps with each other. Exit code: "
        "0 equal, 1 different, 2 unusable input.",
    )
    command.add_argument("traces", nargs="*", metavar="DUMP", help="two dumps to compare without a model")
    command.add_argument("--model", metavar="MODEL", help=names)
    command.add_argument(
        "--weights", metavar="DIR|FILE", help="weights of a model that has none here, from any source"
    )
    command.add_argument("--input", metavar="FILE", help="what the port was given: .npy (B, C, H, W), or a picture")
    command.add_argument("--port", metavar="DUMP", help="what the port computed: a folder of .npy, .npz, safetensors")
    command.add_argument("--names", metavar="FILE", help="which of our values is which of the port's: YAML or JSON")
    command.add_argument("--write-names", metavar="FILE", help="write the names that were matched: .yaml or .json")
    command.add_argument("--layout", choices=("auto", "NCHW", "NHWC"), help="of the port's maps (default: auto)")
    dtypes = ("auto", "float32", "float16", "bfloat16", "float64")
    command.add_argument("--dtype", choices=dtypes, default="auto", help="what the port computes in (default: auto)")
    command.add_argument("--port-weights", metavar="FILE", help="the port's weights, to be compared first")
    command.add_argument("--port-labels", metavar="FILE", help="the port's class names, in the order of its logits")
    command.add_argument("--picture", metavar="FILE", help="the picture that --input was made from")
    command.add_argument(
        "--report", action="append", default=[], metavar="FILE", help="write .html, .json, .xml (JUnit) or .txt too"
    )
    command.add_argument("--repro", metavar="FILE", help="write the first faulty op alone as .npz")
    command.add_argument("--all", action="store_true", help="print every value and every fault in full")
    command.set_defaults(run=parity)

    command = commands.add_parser(
        "bench",
        help="time models, and show where the time goes",
        description="Time fused models, each contestant in a process of its own and in turn with the others. Variants "
        "get random weights.",
    )
    command.add_argument(
        "models", nargs="*", metavar="MODEL", help=f"{names} (default: all variants, EfficientNet's up to B4)"
    )
    command.add_argument("--batch", metavar="N,N", help="pictures per forward pass (default: 1,8)")
    command.add_argument("--against", metavar="NAME,NAME", help="rivals, if installed: torch, onnxruntime")
    command.add_argument("--unfused", action="store_true", help="time the model as it reads, too")
    command.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of everyone (default: %(default)s)")
    command.add_argument(
        "--seconds", type=float, default=2.0, metavar="S", help="to time each in each round (default: %(default)s)"
    )
    command.add_argument("--size", type=int, metavar="N", help="side of the pictures in pixels (default: the model's)")
    command.add_argument("--threads", type=int, metavar="N", help="for everyone (default: what NumPy's BLAS may use)")
    command.add_argument("--breakdown", action="store_true", help="show where the time goes for several models, too")
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")
    command.add_argument("--plot", metavar="FILE", help="draw where the time goes: .png, .svg or .pdf")
    command.add_argument(
        "--scaling", metavar="FILE", help="instead measure and draw how cost grows with pictures and with tokens"
    )
    command.set_defaults(run=bench)
    return parser
