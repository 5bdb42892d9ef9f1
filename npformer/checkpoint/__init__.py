"""Readers and writers of weights: one file per container format. Nothing here depends on any model."""

from .atomic import write_text
from .json_object import read_json
from .safetensors_file import read_checkpoint, read_metadata, read_tensors, write_checkpoint, write_tensors

__all__ = [
    "read_checkpoint",
    "read_json",
    "read_metadata",
    "read_tensors",
    "write_checkpoint",
    "write_tensors",
    "write_text",
]
