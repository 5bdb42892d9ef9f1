"""Jobs in a Python process of their own, so that nothing else is measured with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def ask(module: str, request: dict[str, Any], threads: int, who: str) -> Any:
    """Run `python -m npformer.bench.<module>` on a request; return the last line it prints, both as JSON.

    Whatever library computes there, its environment allows it `threads` threads. `who` names the job in errors.

    Raises ChildProcessError with the last line of its standard error.
    """
    environment = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
    environment["PYTHONPATH"] = os.pathsep.join([_root(), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", f"npformer.bench.{module}", json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        complaint = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ChildProcessError(f"{who} failed: {complaint[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _root() -> str:
    """Return the folder that contains this npformer."""
    return str(Path(__file__).parents[2])


def answer(result: Any) -> None:
    """Print a result for `ask`, on a line of its own."""
    print(f"\n{json.dumps(result)}", flush=True)


def request() -> Any:
    """Return the request that `ask` sent to this process."""
    return json.loads(sys.argv[1])
