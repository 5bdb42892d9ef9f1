"""Comparisons with PyTorch, transformers, timm and torchvision as installed; skipped where they are not."""

import contextlib

with contextlib.suppress(ImportError):
    from . import torchvision_shim

    torchvision_shim.load()  # before transformers or timm do: they import it where it is installed
