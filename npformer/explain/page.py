"""A walk as one self-contained HTML page: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from ..page import data_uri, document, escape, section
from .images import coloured
from .walk import Step, Strip, Walk

SIDE = 168  # pixels of a small picture, drawn at half of that on a phone


def page(walk: Walk) -> str:
    """Return the whole page; every text in it is escaped."""
    sections = [
        section("answer", "What it sees", _answer(walk)),
        section("costs", "The way through", _costs(walk)),
        *(_step(number, step, walk) for number, step in enumerate(walk.steps, 1)),
    ]
    if walk.evidence:
        sections.append(section("evidence", "Where the answer comes from", _strip(walk.evidence, walk, 2 * SIDE)))
    title = f"{walk.guesses[0][0]}: how {walk.model} sees it"
    return document(title, _STYLE, sections)


def _answer(walk: Walk) -> str:
    from PIL import Image

    height, width = walk.picture.shape[:2]
    side = 2 * SIDE
    seen = Image.fromarray(walk.picture).resize((max(1, round(side * width / height)), side), Image.Resampling.NEAREST)
    bars = "".join(
        f'<li><span class="label">{escape(label)}</span><span class="bar"><span style="width:{100 * share:.2f}%">'
        f'</span></span><span class="number">{share:.1%}</span></li>\n'
        for label, share in walk.guesses
    )
    return (
        f'<div class="answer"><figure><img src="{data_uri(seen)}" alt="the picture as the model gets it">'
        f"<figcaption>The picture as the model gets it, {height} x {width} pixels.</figcaption></figure>\n"
        f'<div><ol class="guesses">\n{bars}</ol>\n<p>{escape(walk.kind)}, {walk.parameters:,} parameters, '
        f"{walk.multiply_adds:,} multiply-adds for this picture.</p></div></div>"
    )


def _costs(walk: Walk) -> str:
    """Return a table of the steps with bars for their costs."""
    columns: list[tuple[str, Callable[[Step], int]]] = [
        ("parameters", lambda step: step.parameters),
        ("multiply-adds", lambda step: step.multiply_adds),
    ]
    most = {name: max(1, *(cost(step) for step in walk.steps)) for name, cost in columns}
    rows = []
    for number, step in enumerate(walk.steps, 1):
        cells = "".join(
            f'<td class="number">{cost(step):,}<span class="bar">'
            f'<span style="width:{100 * cost(step) / most[name]:.2f}%"></span></span></td>'
            for name, cost in columns
        )
        rows.append(
            f'<tr><th scope="row"><a href="#step-{number}">{number}. {escape(step.title)}</a></th>'
            f"<td>{_times(step.shape)}</td>{cells}</tr>\n"
        )
    return (
        '<div class="wide"><table><thead><tr><th scope="col">step</th><th scope="col">gives</th>'
        '<th scope="col">parameters</th><th scope="col">multiply-adds</th></tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _step(number: int, step: Step, walk: Walk) -> str:
    facts = (
        f'<p class="facts">gives <b>{_times(step.shape)}</b>, {step.parameters:,} parameters, '
        f"{step.multiply_adds:,} multiply-adds</p>"
    )
    names = "".join(f"<code>{escape(name)}</code> " for name in step.name.split(", "))
    strips = "".join(_strip(strip, walk, SIDE) for strip in step.strips)
    body = f"<p>{escape(step.says)}</p>\n{facts}\n<details><summary>its names</summary><p>{names}</p></details>"
    return section(f"step-{number}", f"{number}. {step.title}", f"{body}\n{strips}")


def _strip(strip: Strip, walk: Walk, side: int) -> str:
    pictures = "".join(
        f'<figure><img src="{data_uri(drawn)}" alt="{escape(image.label)}" width="{drawn.width}" '
        f'height="{drawn.height}"><figcaption>{escape(image.label)}</figcaption></figure>\n'
        for image, drawn in zip(strip.images, coloured(strip, walk.picture, side), strict=True)
    )
    return f'<figure class="strip"><figcaption>{escape(strip.caption)}</figcaption><div>\n{pictures}</div></figure>\n'


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


_STYLE = """\
.facts, details { color: var(--dim); font-size: .9rem; } code { overflow-wrap: anywhere; margin-right: .5rem; }
.answer { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
.answer > div { flex: 1 1 18rem; }
.strip { margin: 1.2rem 0; } .strip > figcaption { max-width: 44rem; margin-bottom: .4rem; }
.strip > div { display: grid; grid-template-columns: repeat(auto-fill, minmax(84px, 112px)); gap: .6rem; }
#evidence .strip > div { grid-template-columns: minmax(120px, 336px); }
.strip div figcaption { font-size: .8rem; font-variant-numeric: tabular-nums; }
.guesses { list-style: none; padding: 0; margin: 0 0 1rem; }
.guesses li { display: grid; grid-template-columns: minmax(6rem, 11rem) 1fr 4rem; gap: .6rem; align-items: center; }
.guesses .label { overflow-wrap: anywhere; }
.bar { display: block; height: .7rem; background: var(--soft); border-radius: .2rem; overflow: hidden; }
.bar span { display: block; height: 100%; background: var(--bar); }
td.number .bar { height: .3rem; min-width: 7rem; }
"""
