"""Step-by-step explanation of a model's prediction for one picture, as a page: `npformer explain`.

`walk.py` runs the model and chooses what to show, `page.py` writes the HTML page, `overview.py` draws the short
version as one figure, and `images.py` turns numbers into colours.
"""

from .overview import overview
from .page import page
from .walk import Image, Step, Strip, Walk, walk

__all__ = ["Image", "Step", "Strip", "Walk", "overview", "page", "walk"]
