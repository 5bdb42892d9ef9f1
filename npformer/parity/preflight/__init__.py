"""Checks before any layer is judged: whether the port's input, weights and classes are ours."""

from .labels import check_labels, check_logit_order, read_port_labels
from .pixels import InputCheck, check_input, describe_input
from .weights import check_weights

__all__ = [
    "InputCheck",
    "check_input",
    "check_labels",
    "check_logit_order",
    "check_weights",
    "describe_input",
    "read_port_labels",
]
