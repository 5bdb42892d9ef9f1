"""Self-contained HTML pages: no script, no font, no picture from elsewhere; legible in light and dark mode."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

STYLE = """\
:root { color-scheme: light dark; --text: #1b1f24; --ground: #fff; --soft: #eef1f4; --line: #c9ced4; --dim: #57606a;
  --bar: #1f6f8b; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --ground: #14171a; --soft: #242a30; --line: #414951;
  --dim: #a3adb7; --bar: #5fb4d0; } }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p { max-width: 44rem; margin: .4rem 0; }
figure { margin: 0; } img { display: block; max-width: 100%; height: auto; border-radius: .25rem; }
figcaption { color: var(--dim); font-size: .9rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
tbody th { font-weight: normal; } a { color: inherit; }
"""


def document(title: str, style: str, sections: list[str]) -> str:
    """Return a whole page: `style` is appended to the common style sheet, `sections` are HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{chr(10).join(sections)}\n</main>\n</body>\n</html>\n"
    )


def section(anchor: str, heading: str, content: str) -> str:
    """Return a part of a page with a heading; `content` is HTML."""
    return f'<section id="{anchor}">\n<h2>{escape(heading)}</h2>\n{content}\n</section>'


def escape(text: str) -> str:
    """Escape text for HTML."""
    return html.escape(text, quote=True)


def data_uri(picture: Picture) -> str:
    """Return a picture as a data URI."""
    stream = io.BytesIO()
    picture.quantize(256).save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
