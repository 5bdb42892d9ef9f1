"""Every Python example of the EfficientFormer documentation (transformers 4.34), run as text.

The snippets are the page's, line for line, without prompts and blank comments. `translate` makes the only changes
there are: where names come from, NumPy in place of PyTorch and TensorFlow, and a directory in place of the hub's id.
"""

from __future__ import annotations

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

HUB_ID = "snap-research/efficientformer-l1-300"
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
    return example.replace(f'"{HUB_ID}"', repr(str(directory)))


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))


@pytest.fixture(autouse=True)
def datasets(monkeypatch: pytest.MonkeyPatch, picture: Image.Image) -> None:
    """A stand-in for the datasets library that knows one data set of one picture."""
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
    """What the model says to the picture, without going through any file."""
    return teacher(EfficientFormerImageProcessor()(picture, return_tensors="np")["pixel_values"])


def run(example: str, directory: Path) -> dict[str, Any]:
    """Execute a translated example; returns its variables."""
    names: dict[str, Any] = {}
    exec(translate(example, directory), names)
    return names


@pytest.mark.parametrize("example", [CONFIG, MODEL, ONE_HEAD, TWO_HEADS, TF_MODEL, TF_ONE_HEAD, TF_TWO_HEADS])
def test_no_other_framework_is_left_in_any_example(example: str) -> None:
    assert "from transformers import" in example
    code = translate(example, Path("directory"))
    assert not re.search(r"\b(transformers|torch|tensorflow|tf|pt|snap)\b", code)
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
