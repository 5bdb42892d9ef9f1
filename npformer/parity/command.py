"""The command `npformer parity`: compare a port's dump with a model, or two dumps, and report the differences."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

import numpy as np

from ..checkpoint.files import read_weights
from ..cli import is_random, load_model
from ..convert import settings
from ..convert.pipeline import load_checkpoint
from ..image import BaseImageProcessor
from ..models.pretrained import PreTrainedModel
from ..models.registry import find_variant, image_processor, model_config
from ..ops import Array
from ..picture import load_image
from . import export
from .compare import compare
from .names import Matching, write_map
from .preflight.labels import read_port_labels
from .report import Report
from .show import format_report, verdict
from .traces import compare_traces

SIZES = ("depths", "hidden_sizes", "embed_dims", "width_coefficient", "depth_coefficient")  # define a variant
OF_THE_MODEL = (
    "model", "weights", "input", "port", "names", "write_names", "layout", "port_weights", "port_labels", "picture",
)  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Compare, write the requested files, print the report; return 0 where the port is equal, 1 where it is not.

    Raises ValueError, TypeError, OSError or ImportError for input that cannot be used; then nothing is written.
    """
    _check(args)
    report = compare_traces(*map(Path, args.traces), dtype=args.dtype) if args.traces else _against_model(args)
    if not report.tested and not report.faults and not any(finding.bad for finding in report.findings):
        raise ValueError(verdict(report))
    written = []
    for path in args.report:
        export.save_report(report, path)
        written.append(path)
    if args.write_names:
        write_map(Matching(dict(report.names), {}, dict(report.confidence), report.unmatched, []), args.write_names)
        written.append(args.write_names)
    if args.repro and report.faults:
        export.save_repro(report.faults[0], args.repro)
        written.append(args.repro)
    lines = [format_report(report, verbose=args.all), "", *(f"wrote {path}" for path in written)]
    if args.repro and not report.faults:
        lines.append(f"there is no faulty op, so {args.repro} is not written")
    # With the pipe closed (`| head`) the exit code is still the answer; `main` handles the rest.
    with contextlib.suppress(BrokenPipeError):
        print(_printable("\n".join(lines).rstrip()))
    return 0 if report.equal else 1


def _check(args: argparse.Namespace) -> None:
    """Refuse, before anything is computed, output that could not be written and incomplete requests.

    Raises ValueError.
    """
    for path in args.report:
        export.check_suffix(Path(path), export.REPORT_SUFFIXES, "--report")
    if args.write_names:
        export.check_suffix(Path(args.write_names), export.NAMES_SUFFIXES, "--write-names")
    if args.repro:
        export.check_suffix(Path(args.repro), export.REPRO_SUFFIXES, "--repro")
    if args.traces:
        given = [_option(name) for name in OF_THE_MODEL if getattr(args, name) is not None]
        if len(args.traces) != 2:
            raise ValueError(f"two traces are compared with each other, got {len(args.traces)}: {args.traces[0]}, ...")
        if given:
            raise ValueError(f"two traces are compared without a model, so {given[0]} cannot be given with them")
        return
    missing = [_option(name) for name in ("model", "input", "port") if getattr(args, name) is None]
    if missing:
        raise ValueError(f"--model, --input and --port are needed (or two traces), got no {' nor '.join(missing)}")


def _against_model(args: argparse.Namespace) -> Report:
    model, processor = _load(args.model, args.weights)
    source = Path(args.input)
    if source.suffix.lower() == ".npy":
        pixel_values, made_from = read_array(source), args.picture and load_image(args.picture)
    else:
        made_from = load_image(args.picture or source)
        pixel_values = processor(load_image(source), return_tensors="np")["pixel_values"]
    return compare(
        model,
        pixel_values,
        Path(args.port),
        names=args.names and Path(args.names),
        layout=args.layout or "auto",
        dtype=args.dtype,
        port_weights=read_weights(Path(args.port_weights)).arrays if args.port_weights else None,
        port_labels=read_port_labels(Path(args.port_labels)) if args.port_labels else None,
        picture=made_from,
        processor=processor,
    )


def read_array(path: Path) -> Array:
    """Read the input of a model from a `.npy` file: floats (B, C, H, W), or (C, H, W) for a batch of one.

    Raises ValueError for anything else, FileNotFoundError.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        raise ValueError(f"--input {path} cannot be read as a .npy file of numbers: {error}") from None
    if not isinstance(array, np.ndarray):  # an archive of several arrays
        array.close()
        raise ValueError(f"--input {path} must hold one array, but it is an archive of arrays")
    if array.dtype.kind != "f" or array.ndim not in (3, 4) or not array.size:
        raise ValueError(
            f"--input {path} must hold floats of shape (batch, channels, height, width) or (channels, height, width), "
            f"got {array.dtype} of shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"--input {path} must hold finite numbers, got NaN or infinities")
    return array if array.ndim == 4 else array[None]


def _load(name: str, weights: str | None) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Return the model that --model and --weights select, and its image processor."""
    if weights is None:
        if is_random(name):
            raise ValueError(f"--model {name} has no weights here; give them with --weights, a directory or a file")
        return load_model(name)
    if variant := find_variant(name):
        checkpoint = load_checkpoint(weights, variant=name)
        sizes = {key: value for key, value in vars(checkpoint.model.config).items() if key in SIZES}
        # A config.json beside the weights takes precedence over the variant.
        if (meant := settings.find_variant(checkpoint.found.family, sizes)) != variant[0]:
            raise ValueError(f"--model is {name}, but --weights {weights} holds {meant or 'a model of another size'}")
        return checkpoint.model, checkpoint.processor
    config, architecture = model_config(name)
    state = load_checkpoint(weights).model.state_dict()
    model = architecture(config, init_weights=False)  # type: ignore[call-arg]
    return model.load_state_dict(state), image_processor(name)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _printable(text: str) -> str:
    """Return text that standard output can encode, whatever characters the names in it have."""
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)
