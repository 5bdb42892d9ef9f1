"""A report in words and as a page: what is said, in what order, and that odd names and numbers break nothing."""

import base64
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from npformer.parity.html import html
from npformer.parity.report import CauseFound, Fault, Finding, Report, Value
from npformer.parity.show import digits, format_report, shown, verdict

ODD = [
    'quote"d', "apostrophe's", "a<b>&amp;", "neue\nZeile", "bell\x07\x1b[31mred", "żółć漢字", "\u202emirrored",
    "half\ud800pair", "nul\x00", "]]>", "\ufffe",
]  # fmt: skip
SILU = CauseFound("silu-relu", "SiLU replaced by ReLU", "", 0.93)
TANH = CauseFound("gelu-tanh", "GELU's tanh approximation.", "", 1.21)


def make_value(name, status="clean", ratio=None, **fields):
    if status == "untested":
        return Value(name, "Conv2d", (2, 6, 5, 7), "BCHW", **fields)
    ratio = {"faulty": 5312.4, "clean": 1.25, "inherited": 1.5}[status] if ratio is None else ratio
    level = "pass" if ratio <= 4 else "warn" if ratio <= 8 else "fail"
    numbers = {
        "ratio": ratio, "bulk": ratio, "peak": 0.5 * ratio, "channel": 0.25 * ratio, "floor": 2e-7, "error": 0.75,
        "largest": 3.5, "ulp": 12.0, "sqnr": 31.7, "drift": 1e-7,
    }  # fmt: skip
    return Value(name, "Conv2d", (2, 6, 5, 7), "BCHW", f"port/{name}", "NHWC", status, level, **{**numbers, **fields})


def make_fault(value, causes=(SILU,), span=(), seed=0, **fields):
    """A fault with random arrays, as a depthwise convolution's."""
    random = np.random.default_rng(seed)
    arrays = {
        "by_channel": random.random(6), "error_map": random.random((5, 7)), "border": 1.25,
        "inputs": {"input": random.standard_normal((2, 6, 5, 7))},
        "parameters": {"weight": random.standard_normal((6, 1, 3, 3)), "bias": random.standard_normal(6)},
        "expected": random.standard_normal((2, 6, 5, 7)), "got": random.standard_normal((2, 6, 5, 7)),
    }  # fmt: skip
    found = [CauseFound(cause.key, cause.text, cause.op or value.name, cause.ratio) for cause in causes]
    op = found[0].op if len({cause.op for cause in found}) == 1 else value.name
    return Fault(value, op, list(span), found, (1, 3, 4, 2), 0.123456789, -math.pi, **{**arrays, **fields})


def make_report(count=20, faulty=(), warned=(), untested=(), names=None, dtype="float32", causes=(SILU,), **fields):
    """A report of so many values, the numbered ones with those statuses, and all after the first fault inherited."""
    names = names or [f"encoder.blocks.{i}.conv" for i in range(count)]
    values, faults, span = [], [], []
    for i, name in enumerate(names):
        if i in untested:
            values.append(make_value(name, "untested"))
            span.append(name)
            continue
        status = "faulty" if i in faulty else "inherited" if faults else "clean"
        values.append(make_value(name, status, 6.5 if i in warned else None))
        if i in faulty:
            faults.append(make_fault(values[-1], causes, span, seed=i))
        span = []
    port_names = {value.name: value.port_name for value in values if value.port_name}
    settings = {"findings": [], "names": port_names, "seconds": 1.25, **fields}
    return Report("EfficientFormerModel", dtype, "NHWC", values, faults, **settings)


def odd_report():
    """Odd names everywhere, numbers that are not finite, and every reason for having no error to measure."""
    names = [f"{name}{i}" for i, name in enumerate(ODD * 3)] + [""]
    report = make_report(names=names, faulty=(3, 9, 12, 33), untested=(1, 2, 20, 21))
    report.findings = [Finding(f"kind {name}", f"text {name}", bad=i in (2, 4)) for i, name in enumerate(ODD)]
    report.suggestions = names[5:9]
    report.confidence = {names[6]: 0.51, names[7]: 0.92}
    report.model, report.layout = ODD[0], ODD[4]
    first, second, third, last = report.faults
    first.by_channel = np.array([0.5, np.nan, np.inf, 0.0, 1.0])
    first.error_map = np.array([[0.0, np.nan], [np.inf, 2.0], [1.0, 0.5]])
    first.worst, first.expected_there, first.got_there, first.border = (0, 1, 2, 0), math.nan, -math.inf, math.inf
    first.value.ratio, first.value.sqnr, first.value.error = math.inf, -math.inf, math.nan
    first.causes = [CauseFound("k", f"cause {ODD[2]}", name, math.inf) for name in names[:2]]
    second.causes, second.reason, second.value.note, second.worst = [], "misshapen", f"shape of {ODD[2]}", ()
    second.by_channel = second.error_map = second.expected = second.border = None
    for field in ("ratio", "bulk", "peak", "channel", "floor", "error", "largest", "ulp", "sqnr", "drift"):
        setattr(second.value, field, None)
    third.causes, third.by_channel, third.error_map = [], np.zeros(3), np.zeros((4, 1))
    third.value.ratio = 1e250
    last.inputs, last.parameters = dict.fromkeys(ODD, np.full(2, np.nan)), {"weight": np.zeros((0, 3))}
    return report


# --- the verdict -----------------------------------------------------------------------------------------------------


def test_verdict_of_an_equal_port():
    report = make_report(31)
    report.values[4].ratio = 1.84
    assert verdict(report) == "equal within float32 noise: 31 of 31 values tested, worst ratio 1.84"


def test_verdict_of_an_equal_port_counts_warnings_and_what_was_not_dumped():
    report = make_report(31, warned=(3, 5), untested=(7, 8, 9), dtype="float16")
    assert verdict(report) == (
        "equal within float16 noise: 28 of 31 values tested, worst ratio 6.5 (2 values between 4 and 8)"
    )


def test_verdict_names_the_first_fault_and_its_cause():
    report = make_report(20, faulty=(6,), untested=(2, 3))
    assert verdict(report) == (
        "different: 1 fault, first at encoder.blocks.6.conv (SiLU replaced by ReLU); 13 values after it inherit the "
        "error; 18 of 20 values tested, float32"
    )


@pytest.mark.parametrize(
    ("causes", "told"),
    [
        ((), "(cause unknown)"),
        ((SILU,), "(SiLU replaced by ReLU)"),
        ((SILU, TANH), "(not identifiable at float16: SiLU replaced by ReLU or GELU's tanh approximation)"),
    ],
)
def test_verdict_by_number_of_causes(causes, told):
    report = make_report(8, faulty=(6, 7), causes=causes, dtype="float16")
    assert verdict(report) == (
        f"different: 2 faults, first at encoder.blocks.6.conv {told}; 8 of 8 values tested, float16"
    )


def test_verdict_of_a_fault_among_values_that_were_not_dumped():
    report = make_report(10, faulty=(6,), untested=(3, 4, 5), causes=())
    assert "first in one of the 4 values from encoder.blocks.3.conv to encoder.blocks.6.conv (cause" in verdict(report)
    report.faults[0].causes = [CauseFound("k", "a doubled layer scale", "encoder.blocks.4.conv", 1.0)]
    report.faults[0].op = "encoder.blocks.4.conv"
    assert "first at encoder.blocks.4.conv (a doubled layer scale); 3 values" in verdict(report)
    report.faults[0].causes.append(CauseFound("l", "a missing one", "encoder.blocks.5.conv", 1.0))
    assert "first at encoder.blocks.4.conv or encoder.blocks.5.conv (not identifiable" in verdict(report)


def test_verdict_of_a_misshapen_value_does_not_blame_what_was_not_dumped():
    report = make_report(10, faulty=(6,), untested=(3, 4, 5), causes=())
    report.faults[0].reason = "misshapen"
    assert "first at encoder.blocks.6.conv (misshapen);" in verdict(report)


def test_verdict_puts_bad_findings_first():
    findings = [Finding("names", "3 aligned"), Finding("input", "the input is BGR.", True)]
    report = make_report(9, findings=findings)
    assert not report.equal
    assert verdict(report) == "different: the input is BGR; 9 of 9 values tested, float32"
    report = make_report(9, faulty=(8,), findings=[*findings, Finding("labels", "other order", True)])
    assert verdict(report).startswith(
        "different: the input is BGR (and 1 more finding); 1 fault, first at encoder.blocks.8.conv (SiLU"
    )


def test_verdict_where_nothing_was_dumped():
    report = make_report(9, untested=range(9))
    assert verdict(report) == "nothing compared: none of the 9 values was found in the port's dump"


@pytest.mark.parametrize("index", range(len(ODD)))
def test_verdict_is_one_printable_line_whatever_the_names(index):
    report = make_report(names=[ODD[index], "b"], faulty=(0,), findings=[Finding("x", ODD[index], True)])
    assert verdict(report).isprintable()
    verdict(report).encode()
    assert shown(ODD[index])[:3] in verdict(report)


def test_the_model_itself_has_a_name_to_read():
    report = make_report(names=["conv", ""], faulty=(1,))
    assert "first at (model) (SiLU" in verdict(report)
    assert format_report(report).count("(model)") >= 3


# --- the text --------------------------------------------------------------------------------------------------------


def test_text_begins_with_the_verdict_and_tells_the_first_fault_in_full():
    report = make_report(20, faulty=(6, 9), untested=(5,))
    text = format_report(report)
    assert text.splitlines()[0] == verdict(report)
    first = text[text.index("Fault 1 of 2: at encoder.blocks.6.conv") : text.index("Fault 2 of 2")]
    channel = report.faults[0].by_channel
    for told in [
        "encoder.blocks.6.conv, Conv2d, 2 x 6 x 5 x 7, value 7 of 20",
        "port/encoder.blocks.6.conv, laid out as NHWC",
        "SiLU replaced by ReLU, which leaves a ratio of 0.93",
        "1 value just before: encoder.blocks.5.conv",
        "at [B 1, C 3, H 4, W 2]: expected 0.123456789, got -3.14159265",
        "5,312 times the noise floor (all numbers 5,312, largest error 2,656, worst channel 1,328)",
        "up to 0.75, where exact values reach 3.5; the noise floor is 2e-07 (root mean square)",
        "31.7 dB",
        "12 units in the last place of float32",
        f"largest errors: {channel.argmax()} ({channel.max():.3g}), ",
        f"median {np.median(channel):.3g}",
        "errors at the border are 1.25 times those inside",
    ]:
        assert told in first, told
    second = text[text.index("Fault 2 of 2") : text.index("Coverage")]
    assert "expected 0.123" in second
    assert "SQNR" not in second
    assert format_report(report, verbose=True).count("31.7 dB\n") == 2


@pytest.mark.parametrize(
    ("causes", "told"),
    [
        ((), "cause        unknown: nothing"),
        ((SILU, TANH), "cause        not identifiable at float16: SiLU replaced by ReLU, which leaves a ratio of "
         "0.93 or GELU's tanh approximation, which leaves a ratio of 1.21\n"),
    ],
)  # fmt: skip
def test_text_of_causes(causes, told):
    report = make_report(8, faulty=(5,), untested=(4,), causes=causes, dtype="float16")
    text = format_report(report)
    assert told in text
    assert ("; the fault may lie in any of them or in this value itself" in text) == (not causes)


def test_text_says_at_which_value_that_was_not_dumped_the_cause_sits():
    report = make_report(8, faulty=(5,), untested=(3, 4))
    report.faults[0].causes[0].op = report.faults[0].op = "encoder.blocks.3.conv"
    text = format_report(report)
    assert "Fault 1 of 1: at encoder.blocks.3.conv\n" in text
    assert "SiLU replaced by ReLU, at encoder.blocks.3.conv, which leaves" in text


def test_text_shortens_long_spans_but_keeps_both_ends():
    report = make_report(40, faulty=(30,), untested=range(5, 30), causes=())
    line = next(line for line in format_report(report).splitlines() if "just before" in line)
    assert "25 values just before: encoder.blocks.5.conv, " in line
    assert ", ..., encoder.blocks.29.conv;" in line
    assert "encoder.blocks.20.conv" not in line


def test_text_suspects_padding_where_the_border_is_worse():
    report = make_report(8, faulty=(5,))
    assert "padding" not in format_report(report)
    report.faults[0].border = 3.5
    assert "errors at the border are 3.5 times those inside: padding may be wrong" in format_report(report)


def test_channels_that_are_not_finite_count_as_worst():
    report = make_report(8, faulty=(5,))
    report.faults[0].by_channel = np.array([1.0, 2.0, np.nan, 0.5, np.inf, 0.25, 0.125, 0.0625])
    assert "errors: 2 (nan), 4 (inf), 1 (2), 0 (1), 3 (0.5), 5 (0.25); median 0.75" in format_report(report)


def test_coverage_counts_and_names_the_longest_gaps():
    report = make_report(30, faulty=(20,), warned=(18,), untested=[3, 5, 10, 11, 12, 28, 29])
    report.confidence = {f"encoder.blocks.{i}.conv": i / 10 for i in (4, 6, 7, 8)}
    text = format_report(report)
    assert "23 of 30 values tested: 15 clean, 1 faulty, 7 inherited; 7 not in the dump" in text
    assert "1 value has a ratio between 4 and 8" in text
    assert "3 values in a row not in the dump: encoder.blocks.10.conv to encoder.blocks.12.conv" in text
    assert "2 values in a row not in the dump: encoder.blocks.28.conv to encoder.blocks.29.conv" in text
    assert "1 value in a row not in the dump: encoder.blocks.3.conv" in text
    assert "encoder.blocks.5.conv" not in text, "the three longest gaps are enough"
    assert "4 names matched by order, shape and content; least certain: port/encoder.blocks.4.conv for " in text
    assert "(40%)" in text
    assert "EfficientFormerModel; the port computes in float32, maps laid out as NHWC; 1.2 s" in text


def rows_of(text):
    table = text.split("Values, in the order they are computed\n")[1].split("\n\n")[0].splitlines()
    assert table[0].split()[:2] == ["status", "ratio"]
    return [line.strip() for line in table[1:]]


def test_short_table_has_faults_and_warnings_with_neighbours_and_counts_the_rest():
    report = make_report(60, faulty=(30,), warned=(10,), untested=[*range(14, 20), 40])
    rows = rows_of(format_report(report))
    numbers = [int(re.search(r"encoder\.blocks\.(\d+)", row)[1]) for row in rows if not row.startswith("...")]
    assert numbers == [8, 9, 10, 11, 12, 28, 29, 30, 31, 32, 59]
    assert [row for row in rows if row.startswith("...")] == [
        "... 8 clean", "... 9 clean, 6 untested", "... 25 inherited, 1 untested",
    ]  # fmt: skip
    assert next(row for row in rows if ".10." in row).split()[:3] == ["clean,", "warn", "6.5"]
    full = rows_of(format_report(report, verbose=True))
    assert len(full) == 60
    assert full[14].split() == ["untested", "-", "-", "-", "-", "Conv2d", "2", "x", "6", "x", "5", "x", "7",
                                "encoder.blocks.14.conv"]  # fmt: skip
    columns = {row.index("Conv2d") for row in format_report(report, verbose=True).splitlines() if ".conv  " in row}
    assert len(columns) == 1, "columns are aligned"


def test_short_table_of_an_equal_port_shows_its_worst_value():
    report = make_report(60)
    report.values[33].ratio = 2.5
    rows = rows_of(format_report(report))
    assert any(".33." in row and " 2.5 " in row for row in rows)
    assert len(rows) == 8


def test_many_faults_are_cut_short_unless_all_are_wanted():
    report = make_report(90, faulty=range(10, 80))
    text = format_report(report)
    assert "Fault 20 of 70" in text
    assert "Fault 21 of 70" not in text
    assert "50 more faults, not told here" in text
    assert "Fault 70 of 70" in format_report(report, verbose=True)
    assert len(text.splitlines()) < 200


def test_suggestions_come_in_order():
    text = format_report(make_report(9, faulty=(8,), suggestions=["b", "a", "", "z\n"]))
    assert "dump next, the most telling first\n  b\n  a\n  (model)\n  z\\n\n" in text


@pytest.mark.parametrize("verbose", [False, True])
def test_odd_names_and_numbers_give_text_of_printable_lines(verbose):
    text = format_report(odd_report(), verbose)
    assert all(line.isprintable() for line in text.split("\n"))
    text.encode()
    assert "misshapen: there is no error to measure" in text
    assert "got -inf" in text
    assert "leaves a ratio of inf" not in text


def test_a_report_of_nothing():
    report = Report("M", "float32", "", [], [])
    assert "nothing compared" in format_report(report)
    check_page(html(report))


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "-"), (0.0, "0"), (1.846, "1.85"), (99.94, "99.9"), (5312.4, "5,312"), (999.7, "1,000"), (2e7, "2e+07"),
     (1e-7, "1e-07"), (-123.6, "-124"), (math.inf, "inf"), (-math.inf, "-inf"), (math.nan, "nan")],
)  # fmt: skip
def test_digits(number, text):
    assert digits(number) == text


# --- the page --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Elements, their attributes and text; complains about tags that do not balance."""

    VOID = ("meta", "img", "line", "br")

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag, **attributes):
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]


def check_page(source):
    page = Page()
    page.feed(source)
    page.close()
    assert page.open == []
    source.encode()
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for key in ("src", "href", "xlink:href"):
            assert attributes.get(key, "#").startswith(("#", "data:image/png;base64,")), "nothing from elsewhere"
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids
        for reference in attributes.get("aria-labelledby", "").split():
            assert reference in ids
        for key in ("x", "y", "cx", "cy", "x1", "x2", "y1", "y2", "width", "height"):
            assert math.isfinite(float(attributes.get(key, 0)))
        assert "nan" not in attributes.get("d", "")
    allowed = {
        "html", "head", "meta", "title", "style", "body", "main", "section", "article", "h1", "h2", "h3", "p", "dl",
        "dt", "dd", "ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "svg",
        "desc", "rect", "line", "path", "circle", "text", "img", "div", "span", "a", "code", "details", "summary",
    }  # fmt: skip
    assert {tag for tag, _ in page.elements} <= allowed, "a name was taken for a tag"
    assert all(image.get("alt") for image in page.all("img"))
    assert "url(" not in source
    assert "@import" not in source
    return page


def test_page_has_all_that_the_text_has():
    report = make_report(40, faulty=(12, 20), warned=(5,), untested=(7, 8, 11))
    report.findings = [Finding("input", "equal to ours"), Finding("labels", "in another order", True)]
    report.suggestions = ["next.value"]
    page = check_page(html(report))
    words = " ".join(page.words)
    assert verdict(report) in words
    for line in format_report(report, verbose=True).splitlines():
        for cell in re.split("  +", line.strip()):
            assert cell in words or cell == "!" or "Fault" in cell, cell
    assert len(page.all("tr")) == 1 + 2 + 1 + 40
    assert page.all("a", href="#fault-2")
    assert page.all("article", id="fault-2")
    assert page.all("tr", id="value-13", class_="faulty")
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))


def test_plot_shows_every_value_where_its_ratio_is():
    report = make_report(30, faulty=(12,), warned=(5,), untested=(7, 8, 20))
    report.values[3].ratio, report.values[4].ratio, report.values[6].ratio = 0.1, 1.0, 0.0
    page = check_page(html(report))
    assert len(page.all("circle", class_="clean")) == 9
    assert len(page.all("circle", class_="inherited")) == 16
    assert len(page.all("rect", class_="warn")) == 1
    assert sum(path["d"].endswith("l5 9h-10z") for path in page.all("path", class_="faulty")) == 1
    gaps = page.all("rect", class_="gap")
    width = float(gaps[0]["width"]) / 2
    assert [float(gap["width"]) for gap in gaps] == pytest.approx([2 * width, width], abs=0.02)
    points = page.all("circle")
    assert float(gaps[0]["x"]) == pytest.approx(56 + 7 * width, abs=0.02)
    heights = [float(point["cy"]) for point in points[:6]]
    bottom, tenth, one = heights[5], heights[3], heights[4]
    decade = tenth - one
    assert bottom == pytest.approx(tenth + decade, abs=0.02), "a logarithmic scale from 0.01"
    limits = [float(line["y1"]) for line in page.all("line") if line["class"].startswith("limit")]
    assert limits == pytest.approx([one - math.log10(4) * decade, one - math.log10(8) * decade], abs=0.02)
    starts = [float(point["cx"]) for point in points]
    assert starts[0] == pytest.approx(56 + width / 2, abs=0.02)
    assert starts[1] - starts[0] == pytest.approx(width, abs=0.02)
    assert "13: encoder.blocks.12.conv, faulty, ratio 5,312" in page.words
    assert "2 values untested: encoder.blocks.7.conv to encoder.blocks.8.conv" in page.words


def test_plot_puts_what_has_no_finite_error_at_the_top_and_what_was_not_measured_at_the_bottom():
    report = make_report(9, faulty=(3, 6, 8))
    report.values[3].ratio, report.values[6].ratio, report.values[8].ratio = math.inf, None, 1e250
    report.values[1].ratio, report.values[2].ratio = None, math.nan
    page = check_page(html(report))
    tops = [path["d"].split("l5")[0].split()[1] for path in page.all("path", class_="faulty") if "h-10z" in path["d"]]
    assert tops == ["7.00", "7.00", "7.00"]
    limits = [float(line["y1"]) for line in page.all("line") if line["class"].startswith("limit")]
    assert limits[0] - limits[1] > 5, "one huge error leaves the scale readable"
    heights = [point["cy"] for point in page.all("circle", class_="clean")]
    assert heights[1] == "264.00"
    assert heights[2] == "12.00"


def picture_of(page, index=0):
    source = page.all("img")[index]["src"].removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source))).convert("RGB"))


def test_error_map_is_a_picture_with_dark_for_zero_and_bright_for_the_largest():
    report = make_report(9, faulty=(5,))
    errors = np.array([[0.0, 0.1, 0.2], [0.4, 0.3, np.nan]])
    report.faults[0].error_map = errors
    page = check_page(html(report))
    picture = picture_of(page)
    assert picture.shape == (2 * 93, 3 * 93, 3)
    small = picture[46::93, 46::93]
    np.testing.assert_array_equal(np.repeat(np.repeat(small, 93, 0), 93, 1), picture)
    light = small.astype(int).sum(2)
    assert light[0, 0] < light[0, 1] < light[0, 2] < light[1, 1] < light[1, 0]
    assert tuple(small[1, 2]) == (0, 200, 255)
    assert tuple(small[1, 0]) == (252, 250, 170)
    assert tuple(small[0, 0]) == (16, 12, 56)
    assert "row 1, column 2" in page.all("img")[0]["alt"]
    words = " ".join(page.words)
    assert "dark 0, bright 0.4, linear; 1 pixel not finite, in blue" in words


def test_channel_bars_are_as_high_as_the_errors():
    report = make_report(9, faulty=(5,))
    report.faults[0].by_channel = np.array([0.5, 1.0, 0.0, 2.0, np.inf, 0.25, 0.125, 0.0625])
    page = check_page(html(report))
    path = page.all("path", class_="bars")[0]["d"]
    tops = [float(top) for top in re.findall(r"V([\d.]+)", path)]
    assert [110 - top for top in tops] == pytest.approx([27.5, 55, 110, 110, 13.75, 6.875, 3.4375], abs=0.01)
    starts = [float(x) for x in re.findall(r"M([\d.]+) 110", path)]
    assert starts == pytest.approx([30, 90, 210, 270, 330, 390, 450])
    assert "channel 3: 2" in page.words
    assert "channel 4: inf" in page.words


def test_page_with_odd_names_and_numbers_stays_whole():
    page = check_page(html(odd_report()))
    words = "".join(page.words)
    for name in ODD:
        assert f"text {shown(name)}" in words
    assert not page.all("b")


@pytest.mark.parametrize("name", ODD)
def test_pictures_are_described_whatever_the_name(name):
    page = check_page(html(make_report(names=["a", name, "b"], faulty=(1,))))
    (picture,) = page.all("img")
    assert picture["alt"].startswith(f"error at each of 5 x 7 pixels of {shown(name)}; the largest is at row ")
    assert picture.keys() == {"src", "alt"}


def test_page_of_many_faults_tells_the_first_ones_and_lists_the_others():
    report = make_report(90, faulty=range(10, 80))
    page = check_page(html(report))
    assert len(page.all("article")) == 20
    assert "50 more faults" in page.words
    assert any("at encoder.blocks.79.conv: SiLU" in word for word in page.words)


def test_a_large_page_stays_small():
    report = make_report(1100, faulty=(300, 301))
    for fault in report.faults:
        fault.by_channel, fault.error_map = (
            np.random.default_rng(0).random(3072),
            np.random.default_rng(0).random((300, 300)),
        )
    source = html(report)
    check_page(source)
    assert len(source) < 1_500_000
