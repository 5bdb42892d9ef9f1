"""`npformer explain`: it shows the values that the model computes, and the page is self-contained."""

from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image as Pictures

import npformer
from npformer import AutoImageProcessor, get_model, load_image, ops
from npformer.assets import sample_pictures, shipped_models
from npformer.explain import Image, Strip, overview, page, walk
from npformer.explain.images import MAGNITUDE, MARK, SIGNED, coloured
from tests import tiny
from tests.support import FAMILIES, ONE_HEAD, TWO_HEADS, command_line

PICTURE = list(sample_pictures())[18]
CLASSIFIERS = [ONE_HEAD, TWO_HEADS, "EfficientNetForImageClassification", "SwiftFormerForImageClassification"]


@pytest.fixture(params=shipped_models())
def shipped(request):
    model = get_model(request.param, pretrained=True)
    processor = AutoImageProcessor.from_pretrained(request.param)
    walked = walk(model, processor, load_image(PICTURE), request.param)
    trace = npformer.record(model, processor(load_image(PICTURE), return_tensors="np")["pixel_values"])
    return model, walked, trace


def test_steps_add_up_to_the_whole_model(shipped):
    model, walked, _ = shipped
    assert sum(step.parameters for step in walked.steps) == walked.parameters == model.num_parameters()
    assert sum(step.multiply_adds for step in walked.steps) == walked.multiply_adds


def test_maps_are_channels_of_what_a_step_returns(shipped):
    _, walked, trace = shipped
    for step in walked.steps[:-1]:
        value = trace[step.name.split(", ")[-1]][0]
        maps = value if value.ndim == 3 else value.T.reshape(value.shape[1], 7, 7)
        assert step.shape == value.shape
        for image in step.strips[0].images:
            np.testing.assert_array_equal(image.values, maps[int(image.label.removeprefix("channel "))])


def test_guesses_are_the_model_s(shipped):
    model, walked, trace = shipped
    probs = ops.softmax(trace[""])[0]
    best = np.argsort(-probs)[:5]
    assert walked.guesses == [(model.config.id2label[i], float(probs[i])) for i in best]


def test_evidence_sums_up_to_the_score(shipped):
    model, walked, trace = shipped
    best = int(trace[""].argmax())
    heads = [getattr(model, name) for name in ("classifier", "head", "dist_head") if name in trace]
    bias = float(np.mean([head.bias[best] for head in heads]))
    caption = walked.evidence.caption
    even = float(caption.split("adds ")[1].split(";")[0])
    shares = walked.evidence.images[0].values
    assert abs(shares.mean()) < 1e-6
    assert even * shares.size + bias == pytest.approx(float(trace[""][0, best]), abs=0.0006 * shares.size)
    low, high = walked.evidence.images[0].label.split(" to ")
    assert float(high) - float(low) == pytest.approx(np.ptp(shares), abs=0.0015)


def test_picture_is_what_the_model_gets_before_arithmetic(shipped):
    model, walked, _ = shipped
    size = 224 if "EfficientFormer" in type(model).__name__ else 96
    raw = Pictures.open(PICTURE).convert("RGB")
    assert walked.picture.shape == (size, size, 3)
    assert abs(walked.picture.mean() - np.asarray(raw).mean()) < 1.5


def test_attention_is_a_mean_over_all_that_ask():
    model, processor = (
        kind.from_pretrained("efficientformer-fashion")
        for kind in (npformer.AutoModelForImageClassification, AutoImageProcessor)
    )
    walked = walk(model, processor, load_image(PICTURE), "")
    received, asked = next(step for step in walked.steps if step.title == "Meta3D blocks").strips[1:]
    for strip in (received, asked):
        assert [image.values.shape for image in strip.images] == 4 * [(7, 7)]
        np.testing.assert_allclose([image.values.sum() for image in strip.images], 1, rtol=1e-5)
    assert len({image.mark for image in asked.images}) == 1


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_random_models_of_every_class(name):
    size = 64
    model = tiny.model(name)
    family = next(family for family in FAMILIES if name.startswith(family))
    processor = npformer.ViTImageProcessor(size={"height": size, "width": size})
    assert family in name
    walked = walk(model, processor, Pictures.new("RGB", (50, 40), (9, 99, 199)), "tiny")
    assert sum(step.parameters for step in walked.steps) == model.num_parameters()
    assert "tiny" in page(walked)
    assert overview(walked).width > 500


def test_a_pooled_maximum_has_no_evidence_by_place():
    model = tiny.model("EfficientNetForImageClassification", pooling_type="max")
    processor = npformer.ViTImageProcessor(size={"height": 64, "width": 64})
    assert walk(model, processor, Pictures.new("RGB", (64, 64)), "").evidence is None


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.sources, self.links, self.ids, self.texts = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        assert tag not in ("script", "link", "iframe")
        assert not any(name.startswith("on") for name in given)
        self.sources += [given["src"]] if "src" in given else []
        self.links += [given["href"]] if "href" in given else []
        self.ids += [given["id"]] if "id" in given else []
        if tag == "img":
            assert given["alt"]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_page_stands_alone(shipped):
    _, walked, _ = shipped
    tags = Tags()
    tags.feed(page(walked))
    assert tags.open == []
    assert all(source.startswith("data:image/png;base64,") for source in tags.sources)
    assert len(tags.sources) > 20
    assert {link.removeprefix("#") for link in tags.links} <= set(tags.ids)
    assert len(tags.ids) == len(set(tags.ids))


def test_labels_are_escaped():
    model = tiny.model(ONE_HEAD)
    model.config.id2label = {i: f"<script>alert({i})</script>" for i in model.config.id2label}
    processor = npformer.ViTImageProcessor(size={"height": 64, "width": 64})
    tags = Tags()
    tags.feed(page(walk(model, processor, Pictures.new("RGB", (64, 64)), 'a "name" & <more>')))
    assert any("<script>" in text for text in tags.texts)


def colours(strip, side=2, picture=None):
    picture = np.zeros((4, 4, 3), np.uint8) if picture is None else picture
    return [np.asarray(drawn).astype(int) for drawn in coloured(strip, picture, side)]


def test_a_magnitude_runs_from_dark_to_bright():
    drawn = colours(Strip("magnitude", "", [Image(np.array([[0.0, 1.0], [2.0, 4.0]]), "")]))[0]
    assert drawn[0, 0].tolist() == MAGNITUDE[0].tolist()
    assert drawn[1, 0].tolist() == MAGNITUDE[2].tolist()
    assert drawn[1, 1].tolist() == MAGNITUDE[-1].tolist()


def test_signed_maps_share_one_scale_with_white_at_zero():
    strip = Strip(
        "signed", "", [Image(np.array([[0.0, 4.0], [-4.0, 2.0]]), ""), Image(np.array([[2.0, 0.0], [0, 0]]), "")]
    )
    first, second = colours(strip)
    assert first[0, 0].tolist() == SIGNED[2].tolist()
    assert first[0, 1].tolist() == SIGNED[4].tolist()
    assert first[1, 0].tolist() == SIGNED[0].tolist()
    assert first[1, 1].tolist() == second[0, 0].tolist() == SIGNED[3].tolist()


def test_heat_is_red_where_it_is_high_and_blue_where_negative():
    strip = Strip("over", "", [Image(np.array([[1.0, 0.0], [0.0, -1.0]]), "")])
    drawn = colours(strip, 40)[0]
    red, _, blue = drawn[2, 2], drawn[2, -2], drawn[-2, -2]
    assert red[0] > red[2] + 100
    assert blue[2] > blue[0] + 60


def test_a_mark_stands_around_its_pixel():
    drawn = colours(Strip("over", "", [Image(np.ones((4, 4)), "", (1, 2))]), 40)[0]
    marked = np.argwhere((drawn == MARK).all(-1))
    assert marked.min(0).tolist() == [10, 20]
    assert marked.max(0).tolist() == [19, 29]


@pytest.fixture
def explain(capsys):
    return command_line(capsys, "explain")


def test_command_writes_a_page(explain, tmp_path):
    code, out, err = explain("-o", tmp_path / "page.html")
    assert (code, err) == (0, "")
    assert "ankle-boot-1.png in 10 steps to Ankle boot (94.8%)" in out
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_command_writes_a_picture(explain, tmp_path):
    code, out, _ = explain(PICTURE, "--model", "swiftformer-fashion", "-o", tmp_path / "short.png")
    assert code == 0
    assert "to Ankle boot" in out
    with Pictures.open(tmp_path / "short.png") as drawn:
        assert drawn.format == "PNG"


def test_random_weights_are_said_to_be(explain, tmp_path):
    code, _, err = explain("--model", "swiftformer-xs", "-o", tmp_path / "page.html")
    assert code == 0
    assert "random" in err
    assert "swiftformer-xs with random weights" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-o", "page.txt"], "--output must be a file that ends in .html or .png, got page.txt"),
        (["-o", "no/such/page.html"], "lies in a folder that does not exist"),
        (["none.png", "-o", "page.html"], "none.png"),
        (["--model", "none", "-o", "page.html"], "none"),
    ],
)
def test_bad_input_gets_one_sentence_and_nothing_is_lost(explain, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.html").write_text("kept")
    code, out, err = explain(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert told in err
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "kept"
