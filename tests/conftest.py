"""Tests that share the cores (`pytest -n auto`) take one thread each: BLAS's and PyTorch's would fight for them."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before NumPy is imported, which reads it once
    os.environ.setdefault("OMP_NUM_THREADS", "1")
