"""Tests of npformer.ops that need no torch."""
