"""Weights from anywhere: recognised, renamed, and made into a model here."""
