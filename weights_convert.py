"""Convert a checkpoint from anywhere into a model directory: `python weights_convert.py SOURCE OUT_DIR`.

The same as `npformer convert`; `python weights_convert.py --help` lists the options.
"""

import sys

from npformer.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
