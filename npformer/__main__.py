"""Entry point of `python -m npformer …`, the same as `npformer …`."""

import sys

from .cli import main

sys.exit(main())
