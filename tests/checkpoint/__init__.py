"""Tests of npformer.checkpoint that need no torch."""
