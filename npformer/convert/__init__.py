"""Conversion of weights from any source: recognised, renamed, and loaded into a model here."""
