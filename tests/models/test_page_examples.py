"""Every Python example of the EfficientFormer, EfficientNet and SwiftFormer documentation, run as text.

The snippets are those of the pages (transformers 4.34, 4.34 and 4.56), line for line, without prompts and comments.
`translate` makes the only changes there are: where names come from, NumPy in place of PyTorch and TensorFlow, and a
directory in place of the hub's id.
"""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import npformer
from npformer import (
    EfficientFormerConfig,
    EfficientFormerForImageClassificationWithTeacher,
    EfficientFormerImageProcessor,
    EfficientNetConfig,
    EfficientNetForImageClassification,
    EfficientNetImageProcessor,
    SwiftFormerConfig,
    SwiftFormerForImageClassification,
    ViTImageProcessor,
)
from tests.support import fill

CONFIG = """
from transformers import EfficientFormerConfig, EfficientFormerModel

configuration = EfficientFormerConfig()

model = EfficientFormerModel(configuration)

configuration = model.config
"""

MODEL = """
from transformers import AutoImageProcessor, EfficientFormerModel
import torch
from datasets import load_dataset

dataset = load_dataset("huggingface/cats-image")
image = dataset["test"]["image"][0]

image_processor = AutoImageProcessor.from_pretrained("snap-research/efficientformer-l1-300")
model = EfficientFormerModel.from_pretrained("snap-research/efficientformer-l1-300")

inputs = image_processor(image, return_tensors="pt")

with torch.no_grad():
    outputs = model(**inputs)

last_hidden_states = outputs.last_hidden_state
list(last_hidden_states.shape)
"""

ONE_HEAD = """
from transformers import AutoImageProcessor, EfficientFormerForImageClassification
import torch
from datasets import load_dataset

dataset = load_dataset("huggingface/cats-image")
image = dataset["test"]["image"][0]

image_processor = AutoImageProcessor.from_pretrained("snap-research/efficientformer-l1-300")
model = EfficientFormerForImageClassification.from_pretrained("snap-research/efficientformer-l1-300")

inputs = image_processor(image, return_tensors="pt")

with torch.no_grad():
    logits = model(**inputs).logits

predicted_label = logits.argmax(-1).item()
print(model.config.id2label[predicted_label])
"""

TWO_HEADS = """
from transformers import AutoImageProcessor, EfficientFormerForImageClassificationWithTeacher
import torch
from datasets import load_dataset

dataset = load_dataset("huggingface/cats-image")
image = dataset["test"]["image"][0]

image_processor = AutoImageProcessor.from_pretrained("snap-research/efficientformer-l1-300")
model = EfficientFormerForImageClassificationWithTeacher.from_pretrained("snap-research/efficientformer-l1-300")

inputs = image_processor(image, return_tensors="pt")

with torch.no_grad():
    logits = model(**inputs).logits

predicted_label = logits.argmax(-1).item()
print(model.config.id2label[predicted_label])
"""

TF_MODEL = """
from transformers import AutoImageProcessor, TFEfficientFormerModel
from datasets import load_dataset

dataset = load_dataset("huggingface/cats-image")
image = dataset["test"]["image"][0]

image_processor = AutoImageProcessor.from_pretrained("snap-research/efficientformer-l1-300")
model = TFEfficientFormerModel.from_pretrained("snap-research/efficientformer-l1-300")

inputs = image_processor(image, return_tensors="tf")
outputs = model(**inputs)

last_hidden_states = outputs.last_hidden_state
list(last_hidden_states.shape)
"""

TF_ONE_HEAD = """
from transformers import AutoImageProcessor, TFEfficientFormerForImageClassification
import tensorflow as tf
from datasets import load_dataset

dataset = load_dataset("huggingface/cats-image")
image = dataset["test"]["image"][0]

image_processor = AutoImageProcessor.from_pretrained("snap-research/efficientformer-l1-300")
model = TFEfficientFormerForImageClassification.from_pretrained("snap-research/efficientformer-l1-300")

inputs = image_processor(image, return_tensors="tf")
logits = model(**inputs).logits

predicted_label = int(tf.math.argmax(logits, axis=-1))
print(model.config.id2label[predicted_label])
"""

TF_TWO_HEADS = """
from transformers import AutoImageProcessor, TFEfficientFormerForImageClassificationWithTeacher
import tensorflow as tf
from datasets import load_dataset

dataset = load_dataset("huggingface/cats-image")
image = dataset["test"]["image"][0]

image_processor = AutoImageProcessor.from_pretrained("snap-research/efficientformer-l1-300")
model = TFEfficientFormerForImageClassificationWithTeacher.from_pretrained("snap-research/efficientformer-l1-300")

inputs = image_processor(image, return_tensors="tf")
logits = model(**inputs).logits

predicted_label = int(tf.math.argmax(logits, axis=-1))
print(model.config.id2label[predicted_label])
"""

NET_CONFIG = """
from transformers import EfficientNetConfig, EfficientNetModel

configuration = EfficientNetConfig()

model = EfficientNetModel(configuration)

configuration = model.config
"""

NET_MODEL = """
from transformers import AutoImageProcessor, EfficientNetModel
import torch
from datasets import load_dataset

dataset = load_dataset("huggingface/cats-image")
image = dataset["test"]["image"][0]

image_processor = AutoImageProcessor.from_pretrained("google/efficientnet-b7")
model = EfficientNetModel.from_pretrained("google/efficientnet-b7")

inputs = image_processor(image, return_tensors="pt")

with torch.no_grad():
    outputs = model(**inputs)

last_hidden_states = outputs.last_hidden_state
list(last_hidden_states.shape)
"""

NET_CLASSES = """
from transformers import AutoImageProcessor, EfficientNetForImageClassification
import torch
from datasets import load_dataset

dataset = load_dataset("huggingface/cats-image")
image = dataset["test"]["image"][0]

image_processor = AutoImageProcessor.from_pretrained("google/efficientnet-b7")
model = EfficientNetForImageClassification.from_pretrained("google/efficientnet-b7")

inputs = image_processor(image, return_tensors="pt")

with torch.no_grad():
    logits = model(**inputs).logits

predicted_label = logits.argmax(-1).item()
print(model.config.id2label[predicted_label])
"""

SWIFT_CONFIG = """
from transformers import SwiftFormerConfig, SwiftFormerModel

configuration = SwiftFormerConfig()

model = SwiftFormerModel(configuration)

configuration = model.config
"""

SWIFT_CLASSES = """
from transformers import AutoImageProcessor, SwiftFormerForImageClassification
import torch
from datasets import load_dataset

dataset = load_dataset("huggingface/cats-image")
image = dataset["test"]["image"][0]

image_processor = AutoImageProcessor.from_pretrained("MBZUAI/swiftformer-xs")
model = SwiftFormerForImageClassification.from_pretrained("MBZUAI/swiftformer-xs")

inputs = image_processor(image, return_tensors="pt")

with torch.no_grad():
    logits = model(**inputs).logits

predicted_label = logits.argmax(-1).item()
print(model.config.id2label[predicted_label])
"""

FORMER_EXAMPLES = [CONFIG, MODEL, ONE_HEAD, TWO_HEADS, TF_MODEL, TF_ONE_HEAD, TF_TWO_HEADS]
EXAMPLES = [*FORMER_EXAMPLES, NET_CONFIG, NET_MODEL, NET_CLASSES, SWIFT_CONFIG, SWIFT_CLASSES]
HUB_ID, NET_HUB_ID, SWIFT_HUB_ID = (
    "snap-research/efficientformer-l1-300",
    "google/efficientnet-b7",
    "MBZUAI/swiftformer-xs",
)
REPLACEMENTS = [
    ("from transformers import", "from npformer import"),
    (r"^(from npformer import .*)\bTF(EfficientFormer\w+)", r"\1\2 as TF\2"),
    (r'return_tensors="(pt|tf)"', 'return_tensors="np"'),
    ("import torch\n", ""),
    (r"with torch\.no_grad\(\):\n    ", ""),
    ("import tensorflow as tf", "import numpy as np"),
    # int() of NumPy's array of one element is an error since NumPy 2.4; TensorFlow's tensor allows it.
    (r"int\(tf\.math\.argmax\((.*)\)\)", r"np.argmax(\1).item()"),
]


def translate(example: str, directory: Path) -> str:
    """The example with npformer and NumPy in place of transformers, PyTorch and TensorFlow."""
    for pattern, replacement in REPLACEMENTS:
        example = re.sub(pattern, replacement, example, flags=re.MULTILINE)
    for hub_id in (HUB_ID, NET_HUB_ID, SWIFT_HUB_ID):
        example = example.replace(f'"{hub_id}"', repr(str(directory)))
    return example


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))


@pytest.fixture(autouse=True)
def datasets(monkeypatch: pytest.MonkeyPatch, picture: Image.Image) -> None:
    """Stub of the datasets library, with one data set of one picture."""
    module = types.ModuleType("datasets")
    module.load_dataset = {"huggingface/cats-image": {"test": {"image": [picture]}}}.__getitem__  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)


@pytest.fixture(scope="module")
def teacher() -> Any:
    """A two-headed L1 with a thousand labels, as published, and random weights of order one.

    The heads are made to disagree: class 281 is the first head's answer, 282 that of the mean of both.
    """
    config = EfficientFormerConfig(num_labels=1000)
    model = fill(EfficientFormerForImageClassificationWithTeacher(config, init_weights=False), np.float32)
    model.classifier.bias[281] += 50
    model.distillation_classifier.bias[282] += 150
    return model


@pytest.fixture(scope="module")
def directory(teacher: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub") / HUB_ID
    teacher.save_pretrained(path)
    EfficientFormerImageProcessor().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def answers(teacher: Any, picture: Image.Image) -> Any:
    """Return the model's output for the picture, without going through any file."""
    return teacher(EfficientFormerImageProcessor()(picture, return_tensors="np")["pixel_values"])


def run(example: str, directory: Path) -> dict[str, Any]:
    """Execute a translated example; returns its variables."""
    names: dict[str, Any] = {}
    exec(translate(example, directory), names)
    return names


@pytest.mark.parametrize("example", EXAMPLES)
def test_no_other_framework_is_left_in_any_example(example: str) -> None:
    assert "from transformers import" in example
    code = translate(example, Path("directory"))
    assert not re.search(r"\b(transformers|torch|tensorflow|tf|pt|snap|google|MBZUAI)\b", code)
    assert len(code.splitlines()) >= len(example.splitlines()) - 2  # less the import of torch and its `with`


def test_the_config_example(directory: Path) -> None:
    names = run(CONFIG, directory)
    assert type(names["model"]) is npformer.EfficientFormerModel
    assert names["configuration"] is names["model"].config
    assert names["configuration"].to_dict() == EfficientFormerConfig().to_dict()


@pytest.mark.parametrize("example", [MODEL, TF_MODEL], ids=["torch", "tensorflow"])
def test_the_model_examples(example: str, directory: Path, teacher: Any) -> None:
    names = run(example, directory)
    assert eval(example.strip().splitlines()[-1], names) == [1, 49, 448]
    inputs = names["inputs"]["pixel_values"]
    assert (inputs.shape, inputs.dtype) == ((1, 3, 224, 224), np.float32)
    expected = teacher.efficientformer(inputs).last_hidden_state
    np.testing.assert_array_equal(names["last_hidden_states"], expected)


@pytest.mark.parametrize("example", [TWO_HEADS, TF_TWO_HEADS], ids=["torch", "tensorflow"])
def test_the_examples_with_two_heads(example: str, directory: Path, answers: Any, capsys: Any) -> None:
    names = run(example, directory)
    assert names["logits"].shape == (1, 1000)
    np.testing.assert_array_equal(names["logits"], answers.logits)
    assert capsys.readouterr().out == "LABEL_282\n"


@pytest.mark.parametrize("example", [ONE_HEAD, TF_ONE_HEAD], ids=["torch", "tensorflow"])
def test_the_examples_with_one_head(example: str, directory: Path, answers: Any, capsys: Any) -> None:
    with pytest.warns(UserWarning, match="does not use distillation_classifier"):
        names = run(example, directory)
    np.testing.assert_array_equal(names["logits"], answers.cls_logits)
    assert capsys.readouterr().out == "LABEL_281\n"


# --- EfficientNet ----------------------------------------------------------------------------------------------------

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def net() -> Any:
    """A B0 with a thousand labels in place of the page's B7, which would take minutes in full size.

    Random weights of order one, and a strong liking for class 281, which is what the page's picture shows.
    """
    names = {index: "tabby, tabby cat" if index == 281 else f"class {index}" for index in range(1000)}
    config = EfficientNetConfig.for_variant("efficientnet-b0", id2label=names)
    model = fill(EfficientNetForImageClassification(config, init_weights=False), np.float32)
    model.classifier.bias[281] += 500
    return model


@pytest.fixture(scope="module")
def net_processor() -> EfficientNetImageProcessor:
    """With the statistics of the published files: include_top divides twice by the roots."""
    return EfficientNetImageProcessor(
        size={"height": 224, "width": 224}, image_mean=IMAGENET_MEAN, image_std=[0.47853944, 0.4732864, 0.47434163]
    )


@pytest.fixture(scope="module")
def net_directory(net: Any, net_processor: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub") / NET_HUB_ID
    net.save_pretrained(path)
    net_processor.save_pretrained(path)
    return path


def test_the_config_example_of_efficientnet(net_directory: Path) -> None:
    names = run(NET_CONFIG, net_directory)
    assert type(names["model"]) is npformer.EfficientNetModel
    assert names["configuration"] is names["model"].config
    assert names["configuration"].to_dict() == EfficientNetConfig().to_dict()


def test_the_model_example_of_efficientnet(net_directory: Path, net: Any, net_processor: Any, picture: Any) -> None:
    """The page says [1, 768, 7, 7], which no EfficientNet gives: its B7 has [1, 2560, 19, 19], our B0 this."""
    names = run(NET_MODEL, net_directory)
    assert eval(NET_MODEL.strip().splitlines()[-1], names) == [1, 1280, 7, 7]
    inputs = names["inputs"]["pixel_values"]
    assert (inputs.shape, inputs.dtype) == ((1, 3, 224, 224), np.float32)
    np.testing.assert_array_equal(inputs, net_processor(picture, return_tensors="np")["pixel_values"])
    np.testing.assert_array_equal(names["last_hidden_states"], net.efficientnet(inputs).last_hidden_state)


def test_the_classification_example_of_efficientnet(
    net_directory: Path, net: Any, net_processor: Any, picture: Any, capsys: Any
) -> None:
    names = run(NET_CLASSES, net_directory)
    expected = net(net_processor(picture, return_tensors="np")["pixel_values"]).logits
    assert names["logits"].shape == (1, 1000)
    np.testing.assert_array_equal(names["logits"], expected)
    assert capsys.readouterr().out == "tabby, tabby cat\n"  # as on the page


# --- SwiftFormer -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swift() -> Any:
    """An XS with a thousand labels, as published, and random weights of order one; its answer is class 281."""
    config = SwiftFormerConfig(num_labels=1000)
    model = fill(SwiftFormerForImageClassification(config, init_weights=False), np.float32)
    model.head.bias[281] += 50_000
    return model


@pytest.fixture(scope="module")
def swift_directory(swift: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a preprocessor file as the published ones: the size one number, and no processor named."""
    path = tmp_path_factory.mktemp("hub") / SWIFT_HUB_ID
    swift.save_pretrained(path)
    switches = {"do_normalize": True, "do_resize": True}
    settings = {**switches, "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD, "size": 224}
    (path / "preprocessor_config.json").write_text(json.dumps(settings))
    return path


def test_the_config_example_of_swiftformer(swift_directory: Path) -> None:
    names = run(SWIFT_CONFIG, swift_directory)
    assert type(names["model"]) is npformer.SwiftFormerModel
    assert names["configuration"] is names["model"].config
    assert names["configuration"].to_dict() == SwiftFormerConfig().to_dict()


def test_the_classification_example_of_swiftformer(
    swift_directory: Path, swift: Any, picture: Any, capsys: Any
) -> None:
    names = run(SWIFT_CLASSES, swift_directory)
    processor = ViTImageProcessor(image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)
    inputs = processor(picture, return_tensors="np")["pixel_values"]
    assert type(names["image_processor"]) is ViTImageProcessor
    np.testing.assert_array_equal(names["inputs"]["pixel_values"], inputs)
    np.testing.assert_array_equal(names["logits"], swift(inputs).logits)
    assert capsys.readouterr().out == "LABEL_281\n"


# --- the replacements ------------------------------------------------------------------------------------------------


def test_what_the_replacements_make_of_an_example() -> None:
    expected = """
from npformer import AutoImageProcessor, EfficientFormerModel as TFEfficientFormerModel
from datasets import load_dataset

dataset = load_dataset("huggingface/cats-image")
image = dataset["test"]["image"][0]

image_processor = AutoImageProcessor.from_pretrained('l1')
model = TFEfficientFormerModel.from_pretrained('l1')

inputs = image_processor(image, return_tensors="np")
outputs = model(**inputs)

last_hidden_states = outputs.last_hidden_state
list(last_hidden_states.shape)
"""
    assert translate(TF_MODEL, Path("l1")) == expected
    assert "\n\nlogits = model(**inputs).logits\n\n" in translate(ONE_HEAD, Path("l1"))
    assert "\npredicted_label = np.argmax(logits, axis=-1).item()\n" in translate(TF_ONE_HEAD, Path("l1"))
    assert "from_pretrained('b7')" in translate(NET_MODEL, Path("b7"))
    assert "from_pretrained('xs')" in translate(SWIFT_CLASSES, Path("xs"))
