"""`npformer evaluate` and `npformer classify --recursive`, as a user runs them."""

import json
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import npformer
from npformer import AutoImageProcessor, get_model, load_image, ops
from npformer.assets import shipped_models
from npformer.evaluate.job import prepare
from tests.evaluate.made_up import CLASSES, class_folders, picture
from tests.support import command_line
from tests.sweep import sweep

MODEL = "efficientnet-fashion"


@pytest.fixture
def evaluate(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return command_line(capsys, "evaluate")


@pytest.fixture
def classify(capsys):
    return command_line(capsys, "classify")


@pytest.fixture
def folder(tmp_path):
    return class_folders(tmp_path / "val", 5)


@pytest.fixture
def expected(folder):
    """Probabilities (15, 10) of the fifteen pictures, in the order of the folders, by the readable model."""
    model, processor = get_model(MODEL, pretrained=True), AutoImageProcessor.from_pretrained(MODEL)
    paths = sorted(folder.glob("*/*.png"))
    pixels = processor([load_image(path) for path in paths], return_tensors="np")["pixel_values"]
    return ops.softmax(model(pixels).logits)


def records(path):
    return sorted(map(json.loads, path.read_text().splitlines()[1:]), key=lambda record: record["number"])


def test_counts_are_those_of_the_model(evaluate, folder, expected, tmp_path):
    code, out, err = evaluate(folder, "--model", MODEL, "--output", tmp_path / "out.jsonl", "--json")
    assert (code, err) == (0, "")
    known = list(get_model(MODEL, pretrained=True).config.id2label.values())
    labels = np.repeat([known.index(name) for name in CLASSES], 5)  # by name: folders are in another order
    best = np.argsort(-expected, axis=1)[:, :5]
    said = json.loads(out)
    assert said["right"] == (best[:, 0] == labels).sum()
    assert said["right_in_five"] == (best == labels[:, None]).any(1).sum()
    assert said["pictures"] == said["read"] == 15
    for record, guesses, label, probs in zip(records(tmp_path / "out.jsonl"), best, labels, expected, strict=True):
        assert record["label"] == label
        assert record["top"] == guesses.tolist()
        np.testing.assert_allclose(record["probs"], probs[guesses], atol=2e-6)


def test_what_is_printed(evaluate, folder):
    code, out, _ = evaluate(folder, "--model", MODEL, "--per-class", "--batch", 4)
    assert code == 0
    assert out.splitlines()[0].split() == ["class", "pictures", "top-1", "%", "top-5", "%", "precision", "%"]
    assert f"of 15 pictures, with {MODEL}" in out
    assert "expected calibration error" in out


def test_a_complete_run_leaves_no_file_behind(evaluate, folder, tmp_path):
    assert evaluate(folder, "--model", MODEL)[0] == 0
    assert not list((tmp_path / "cache").rglob("*.jsonl"))


def test_a_second_run_computes_nothing_again(evaluate, folder, tmp_path, monkeypatch):
    first = evaluate(folder, "--model", MODEL, "--output", tmp_path / "out.jsonl")
    monkeypatch.setattr(npformer.evaluate.run, "classify_share", None)
    assert evaluate(folder, "--model", MODEL, "--output", tmp_path / "out.jsonl") == first


def test_another_model_does_not_continue_this_one_s_results(evaluate, folder, tmp_path):
    evaluate(folder, "--model", MODEL, "--output", tmp_path / "out.jsonl")
    before = (tmp_path / "out.jsonl").read_bytes()
    code, _, err = evaluate(folder, "--model", "swiftformer-fashion", "--output", tmp_path / "out.jsonl")
    assert code == 2
    assert "holds results of another run" in err
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_flip_averages_with_the_mirror_image(evaluate, folder, tmp_path):
    evaluate(folder, "--model", MODEL, "--tta", "flip", "--output", tmp_path / "out.jsonl")
    model, processor = get_model(MODEL, pretrained=True), AutoImageProcessor.from_pretrained(MODEL)
    shown = load_image(folder / "Bag" / "2.png")
    both = [shown, shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    probs = ops.softmax(model(processor(both, return_tensors="np")["pixel_values"]).logits).mean(0)
    record = records(tmp_path / "out.jsonl")[7]
    np.testing.assert_allclose(record["probs"], np.sort(probs)[::-1][:5], atol=2e-6)


def test_crop_pct_keeps_that_share_of_the_shorter_side():
    processor = AutoImageProcessor.from_pretrained(MODEL)  # 96 x 96, bicubic
    shown = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8))
    found = prepare(processor, shown, 0.8)
    assert found.shape == (3, 96, 96)
    resized = shown.resize((200, 120), Image.Resampling.BICUBIC)  # 96 / 0.8 = 120 is the shorter side
    cropped = resized.crop((52, 12, 148, 108))
    np.testing.assert_allclose(found, processor(cropped, return_tensors="np", do_resize=False)["pixel_values"][0])
    assert not np.allclose(found, prepare(processor, shown, None))


@pytest.mark.parametrize("size", [(28, 28), (333, 217), (97, 401)])
@pytest.mark.parametrize("name", shipped_models())
def test_pictures_are_prepared_to_the_bit_as_by_the_processor(name, size):
    processor = AutoImageProcessor.from_pretrained(name)
    shown = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    np.testing.assert_array_equal(
        prepare(processor, shown, None), processor(shown, return_tensors="np")["pixel_values"][0]
    )


@pytest.mark.parametrize(
    "processor",
    [npformer.EfficientFormerImageProcessor(), npformer.EfficientNetImageProcessor(), npformer.ViTImageProcessor()],
)
def test_pictures_are_prepared_to_the_bit_by_default_processors_too(processor):
    shown = Image.fromarray(np.random.default_rng(0).integers(0, 256, (301, 277, 3), dtype=np.uint8))
    np.testing.assert_array_equal(
        prepare(processor, shown, None), processor(shown, return_tensors="np")["pixel_values"][0]
    )


def test_limit_and_seed(evaluate, folder):
    said = json.loads(evaluate(folder, "--model", MODEL, "--limit", 6, "--json")[1])
    assert said["pictures"] == 6
    assert [row["pictures"] for row in said["per_class"]] == [2, 2, 2]
    drawn = json.loads(evaluate(folder, "--model", MODEL, "--limit", 6, "--seed", 1, "--json")[1])
    assert drawn["pictures"] == 6


def test_the_page_and_the_plot(evaluate, folder, tmp_path):
    code, _, err = evaluate(
        folder, "--model", MODEL, "--errors", tmp_path / "errors.html", "--plot", tmp_path / "plot.png"
    )
    assert (code, err) == (0, "")
    page = (tmp_path / "errors.html").read_text()
    assert page.count('src="data:image/png;base64,') >= 10
    assert "http" not in page.replace("https://", "").replace("http-equiv", "") or 'src="http' not in page
    assert "Ankle boot/" in page
    with Image.open(tmp_path / "plot.png") as drawn:
        assert drawn.width > 1000


@pytest.mark.parametrize(("count", "every"), sweep([(50, 10), (1000, 40)], default=[(50, 10)]))
def test_broken_pictures_are_reported_counted_and_never_fatal(tmp_path, count, every):
    broken = odd_pictures(tmp_path / "pictures", count, every)
    output = tmp_path / "out.jsonl"
    script = (
        "import sys; from npformer.bench.timing import peak_megabytes; from npformer.cli import main;"
        "code = main(sys.argv[1:]); print('peak', round(peak_megabytes())); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, "classify", tmp_path / "pictures", "--recursive", "-o", output]
    result = subprocess.run([*command, "--model", MODEL], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = records(output)
    assert len(found) == count
    assert {record["key"] for record in found if "error" in record} == broken
    assert len(broken) == 2 * count // every
    assert f"{count - len(broken)} of {count:,} pictures" in result.stdout
    assert f"{len(broken)} of {count:,} pictures could not be read" in result.stdout
    assert result.stderr == ""
    peak = int(result.stdout.split("peak ")[1])
    assert peak < 500, f"{peak} MB"


def odd_pictures(root, count, every):
    """Pictures, some of them odd; of `every` so many two that nobody can read, whose paths are returned."""
    broken = set()
    bomb = BytesIO()
    Image.new("1", (14_000, 14_000)).save(bomb, "PNG", compress_level=1)  # little on disk, 590 MB as RGB
    for number in range(count):
        path = root / f"folder-{number % 7}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = 40 // every * (number % every)
        if kind == 0:
            picture(number).save(path)
            path.write_bytes(path.read_bytes()[: 60 + number % 50])  # cut off inside the pixels
        elif kind == 20:
            odd = number // every % 5
            if odd == 0:
                path.write_bytes(b"")
            elif odd == 1:
                path.write_text("this is no picture")
            elif odd == 2:
                path.symlink_to(path)
            elif odd == 3:
                path.write_bytes(bomb.getbuffer())
            else:
                path = path.with_suffix(".jpg")
                picture(number).save(path)
                path.write_bytes(path.read_bytes()[:200])
        elif kind == 4:
            path = path.with_suffix(".gif")
            picture(number).save(path, save_all=True, append_images=[picture(number + 1), picture(number + 2)])
        elif kind == 8:
            Image.fromarray(np.random.default_rng(number).integers(0, 65536, (28, 28), dtype=np.uint16)).save(path)
        elif kind == 12:
            path = path.with_suffix(".jpg")
            picture(number).convert("CMYK").save(path)
        elif number % 200 == 24:
            Image.new("RGB", (5000, 4000), (number % 256, 9, 9)).save(
                path, compress_level=1
            )  # large, but not too large
        else:
            picture(number).save(path)
        if kind in (0, 20):
            broken.add(path.relative_to(root).as_posix())
    (root / "folder-0" / "round").symlink_to(root)
    return broken


def test_a_folder_is_classified_into_a_file(classify, folder, expected, tmp_path):
    code, out, _ = classify(folder, "--recursive", "-o", tmp_path / "out.jsonl", "--model", MODEL)
    assert code == 0
    assert out == f"{tmp_path / 'out.jsonl'}: 15 of 15 pictures, with {MODEL}\n"
    found = records(tmp_path / "out.jsonl")
    assert [record["key"] for record in found][:2] == ["Ankle boot/0.png", "Ankle boot/1.png"]
    assert [record["top"][0] for record in found] == expected.argmax(1).tolist()
    assert {record["label"] for record in found} == {None}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none"], "DATA none does not exist"),
        (["val", "--model", "none"], "none"),
        (["val", "--model", "efficientnet-b0"], "has no weights here and would only guess"),
        (["val", "--workers", "0"], "workers must be a whole number of at least 1, got 0"),
        (["val", "--batch", "0"], "batch must be a whole number of at least 1, got 0"),
        (["val", "--limit", "0"], "limit must be a whole number of at least 1, got 0"),
        (["val", "--crop-pct", "1.5"], "crop_pct must be a share above 0 and at most 1"),
        (["val", "--errors", "page.txt"], "--errors must be a file that ends in .html"),
        (["val", "--plot", "plot.txt"], "--plot must be a file that ends in .png, .svg, .pdf"),
        (["val", "--output", "no/such/out.jsonl"], "lies in a folder that does not exist"),
        (["val", "--labels", "none.txt"], "none.txt"),
        (["other"], "DATA has 2 class folders (cats, ...), but the model knows 10 classes"),
        (["empty"], "holds no picture"),
    ],
)
def test_bad_input_gets_one_sentence(evaluate, folder, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    for name in ("other/cats", "other/dogs", "empty/Bag"):
        (tmp_path / name).mkdir(parents=True)
    picture(0).save(tmp_path / "other" / "cats" / "a.png")
    there = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    code, out, err = evaluate(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert told in err
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == there


@pytest.mark.parametrize(
    "arguments",
    [["val", "--recursive"], ["-o", "x.jsonl"], ["val/Bag/0.png", "--recursive", "-o", "x.jsonl"]],
)
def test_recursive_wants_a_folder_and_a_file(classify, folder, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, _, err = classify(*arguments)
    assert code == 2
    assert "--recursive takes one folder as PICTURE, and -o FILE" in err
