"""The models' API against transformers' own classes: outputs, losses, and directories that either side can read."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="4.56")
hf = pytest.importorskip("transformers.models.deprecated.efficientformer", reason="gone in transformers 5")

from npformer import AutoModelForImageClassification  # noqa: E402
from npformer.checkpoint import read_tensors  # noqa: E402
from npformer.models import efficientformer  # noqa: E402
from npformer.models.efficientformer import EfficientFormerConfig  # noqa: E402
from tests import tiny  # noqa: E402
from tests.support import BARE, ONE_HEAD, TWO_HEADS, random_state  # noqa: E402

transformers.logging.set_verbosity_error()
LISTS = ("hidden_states", "attentions")


def pair(class_name: str, dtype: Any = np.float64, **settings: Any) -> tuple[Any, Any]:
    """The same model on both sides, with the same random weights."""
    ours = tiny.model(class_name, **settings).astype(dtype)
    settings = {**tiny.SETTINGS, "hidden_size": tiny.SETTINGS["dim"], **settings}
    theirs = getattr(hf, class_name)(hf.EfficientFormerConfig(**settings))
    theirs = theirs.to(torch.from_numpy(np.zeros(1, dtype)).dtype)
    theirs.load_state_dict({name: torch.tensor(array) for name, array in ours.state_dict().items()})
    return ours, theirs.eval()  # last: eval() is what gathers the attention biases


def run(theirs: Any, x: np.ndarray, **options: Any) -> Any:
    with torch.no_grad():
        return theirs(torch.tensor(x), **options)


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-11) -> None:
    """The same arrays, in the same nest of tuples, up to rounding."""
    if isinstance(theirs, tuple):
        assert type(ours) is tuple
        assert len(ours) == len(theirs)
        for mine, yours in zip(ours, theirs, strict=True):
            assert_close(mine, yours, tolerance)
        return
    expected = theirs.numpy()
    assert (ours.shape, ours.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))


# --- outputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_name", tiny.CLASSES)
@pytest.mark.parametrize(("hidden", "attentions"), list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("by", ["argument", "config"])
def test_dictionaries_hold_the_same_keys_and_values(class_name: str, hidden: bool, attentions: bool, by: str) -> None:
    asked = {"output_hidden_states": hidden, "output_attentions": attentions}
    ours, theirs = pair(class_name, **(asked if by == "config" else {}))
    options = asked if by == "argument" else {}
    x = tiny.pictures().astype(np.float64)
    mine, yours = ours(x, **options), run(theirs, x, **options)
    assert list(mine.keys()) == list(yours.keys())
    assert list(mine) == list(yours)
    assert_close(mine.to_tuple(), yours.to_tuple())
    for key in mine:
        assert_close(mine[key], yours[key])
        assert_close(getattr(mine, key), getattr(yours, key))


@pytest.mark.parametrize("class_name", tiny.CLASSES)
@pytest.mark.parametrize("asked", [{}, {"output_hidden_states": True}, {"output_attentions": True}])
def test_tuples_hold_the_same_values(class_name: str, asked: dict[str, bool]) -> None:
    ours, theirs = pair(class_name)
    x = tiny.pictures().astype(np.float64)
    assert_close(ours(x, **asked, return_dict=False), run(theirs, x, **asked, return_dict=False))
    if class_name == ONE_HEAD:
        labels = np.array([0, 4])
        mine = ours(x, labels=labels, **asked, return_dict=False)
        assert_close(mine, run(theirs, x, labels=torch.tensor(labels), **asked, return_dict=False))


def test_config_return_dict_is_followed_alike() -> None:
    ours, theirs = pair(TWO_HEADS, return_dict=False)
    x = tiny.pictures().astype(np.float64)
    assert_close(ours(x), run(theirs, x))


def test_without_attention_blocks_transformers_forgets_all_pictures_but_the_first() -> None:
    ours, theirs = pair(BARE, num_meta3d_blocks=0)
    x = tiny.pictures().astype(np.float64)
    yours = run(theirs, x).last_hidden_state
    assert yours.shape == (4, 10)
    assert_close(ours(x).last_hidden_state[0], yours)


def test_a_picture_of_another_size_is_refused_alike() -> None:
    ours, theirs = pair(BARE)
    x = tiny.pictures(height=96).astype(np.float64)
    with pytest.raises(ValueError, match="3x2 tokens"):
        ours(x)
    with pytest.raises(RuntimeError, match="must match the size"):
        run(theirs, x)


# --- losses ----------------------------------------------------------------------------------------------------------

CLASSES = np.array([3, 0])
YES_OR_NO = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 0, 1]])
TARGETS = np.random.default_rng(5).standard_normal((2, 5))
LABELS = {  # number of labels, problem_type, labels
    "classes": (5, None, CLASSES),
    "classes, one not counted": (5, None, np.array([3, -100])),
    "classes, none counted": (5, None, np.array([-100, -100])),
    "classes in a column": (5, None, CLASSES[:, None]),
    "classes by name": (5, "single_label_classification", CLASSES),
    "yes or no": (5, None, YES_OR_NO.astype(np.float64)),
    "yes or no by name": (5, "multi_label_classification", YES_OR_NO.astype(np.float64)),
    "maybe": (5, None, 1 / (1 + np.exp(-TARGETS))),
    "one number": (1, None, TARGETS[:, 0]),
    "one number in a column": (1, None, TARGETS[:, :1]),
    "one number by name": (1, "regression", TARGETS[:, 0]),
    "one whole number": (1, None, CLASSES),
    "one number in float32": (1, None, TARGETS[:, 0].astype(np.float32)),
    "five numbers": (5, "regression", TARGETS),
    "five whole numbers": (5, "regression", YES_OR_NO),
    "one yes or no": (1, "multi_label_classification", np.array([[1.0], [0.0]])),
    "one class": (1, "single_label_classification", np.array([0, 0])),
}


@pytest.mark.parametrize("kind", LABELS)
def test_losses_are_the_same(kind: str) -> None:
    number, problem_type, labels = LABELS[kind]
    ours, theirs = pair(ONE_HEAD, num_labels=number, problem_type=problem_type)
    x = tiny.pictures().astype(np.float64)
    mine, yours = ours(x, labels=labels), run(theirs, x, labels=torch.tensor(labels))
    assert_close(mine.loss, yours.loss)
    assert_close(mine.logits, yours.logits)
    assert ours.config.problem_type == problem_type
    assert theirs.config.problem_type is not None  # stored there by the call


def test_the_loss_has_the_dtype_of_the_logits_where_torch_takes_that_of_the_labels() -> None:
    ours, theirs = pair(ONE_HEAD)
    x, labels = tiny.pictures().astype(np.float64), YES_OR_NO.astype(np.float32)
    mine, yours = ours(x, labels=labels).loss, run(theirs, x, labels=torch.tensor(labels)).loss
    assert (mine.dtype, yours.dtype) == (np.float64, torch.float32)
    assert_close(mine.astype(np.float32), yours, 1e-6)


def test_transformers_keeps_the_kind_of_loss_it_guessed_first_and_we_do_not() -> None:
    ours, theirs = pair(ONE_HEAD)
    x = tiny.pictures().astype(np.float64)
    run(theirs, x, labels=torch.tensor(CLASSES))
    ours(x, labels=CLASSES)
    with pytest.raises(ValueError, match="batch_size"):  # takes yes or no for classes now
        run(theirs, x, labels=torch.tensor(YES_OR_NO.astype(np.float64)))
    fresh = pair(ONE_HEAD)[1]
    yours = run(fresh, x, labels=torch.tensor(YES_OR_NO.astype(np.float64)))
    assert_close(ours(x, labels=YES_OR_NO.astype(np.float64)).loss, yours.loss)


@pytest.mark.parametrize(
    ("number", "problem_type", "labels"),
    [
        (5, None, np.array([0, 5])),
        (5, None, np.array([0, 1, 2])),
        (5, None, np.array([0.0, 1.0])),
        (5, "multi_label_classification", CLASSES),
        (0, None, CLASSES),
    ],
)
def test_labels_that_do_not_fit_are_refused_alike(number: int, problem_type: str | None, labels: np.ndarray) -> None:
    ours, theirs = pair(ONE_HEAD, num_labels=number, problem_type=problem_type)
    x = tiny.pictures().astype(np.float64)
    with pytest.raises((ValueError, IndexError), match="labels do not fit"):
        ours(x, labels=labels)
    with pytest.raises((ValueError, IndexError, RuntimeError)):
        run(theirs, x, labels=torch.tensor(labels))


# --- configs ---------------------------------------------------------------------------------------------------------


def test_defaults_are_the_same() -> None:
    theirs = hf.EfficientFormerConfig().to_dict()
    for name, value in EfficientFormerConfig().to_dict().items():
        if name != "hidden_size":  # see the next test
            assert theirs[name] == value, name


def test_transformers_needs_a_hidden_size_for_two_heads_and_we_do_not() -> None:
    assert not hasattr(hf.EfficientFormerConfig(), "hidden_size")
    with pytest.raises(AttributeError, match="hidden_size"):
        getattr(hf, TWO_HEADS)(hf.EfficientFormerConfig(**tiny.SETTINGS))
    assert getattr(efficientformer, TWO_HEADS)(tiny.config()).classifier.weight.shape == (5, 10)


def test_configs_of_either_side_load_on_the_other(tmp_path: Path) -> None:
    labels = ["cat", "dog", "eel", "fox", "gnu"]
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    settings = {**tiny.SETTINGS, **named, "crop_pct": 0.9}
    del settings["num_labels"]
    ours = EfficientFormerConfig(**settings, output_attentions=True)
    theirs = hf.EfficientFormerConfig(**settings, hidden_size=10, output_attentions=True)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    for directory in ("ours", "theirs"):
        for cls in (EfficientFormerConfig, hf.EfficientFormerConfig):
            loaded = cls.from_pretrained(tmp_path / directory).to_dict()
            assert {name: loaded[name] for name in ours.to_dict()} == ours.to_dict()


# --- directories -----------------------------------------------------------------------------------------------------


def load_theirs(class_name: str, directory: Path) -> Any:
    """transformers' loading, which must neither miss nor ignore a key."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, info = getattr(hf, class_name).from_pretrained(directory, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), info
    return model.eval()


@pytest.mark.parametrize("max_shard_size", [10**9, 8000])
@pytest.mark.parametrize("class_name", tiny.CLASSES)
def test_transformers_loads_our_directories(class_name: str, max_shard_size: int, tmp_path: Path) -> None:
    ours = tiny.model(class_name)
    ours.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (max_shard_size == 8000)
    theirs = load_theirs(class_name, tmp_path)
    assert type(theirs).__name__ == class_name == theirs.config.architectures[0]
    assert theirs.dtype == torch.float32
    assert_close(ours(tiny.pictures())[0], run(theirs, tiny.pictures())[0], 1e-5)


def test_transformers_loads_what_we_loaded_and_saved_again(tmp_path: Path) -> None:
    pair(TWO_HEADS, np.float32)[1].half().save_pretrained(tmp_path / "half")
    getattr(efficientformer, TWO_HEADS).from_pretrained(tmp_path / "half").save_pretrained(tmp_path / "again")
    theirs = getattr(hf, TWO_HEADS).from_pretrained(tmp_path / "again", torch_dtype="auto")
    assert theirs.dtype == torch.float32  # the file's, whatever the first config.json said
    first, again = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("half", "again"))
    assert first["dtype"] == "float16"
    assert "dtype" not in again
    assert again["transformers_version"] == first["transformers_version"]


@pytest.mark.parametrize("max_shard_size", ["5GB", "8KB"])
@pytest.mark.parametrize("class_name", tiny.CLASSES)
def test_we_load_directories_of_transformers(class_name: str, max_shard_size: str, tmp_path: Path) -> None:
    ours, theirs = pair(class_name, np.float32)
    theirs.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (max_shard_size == "8KB")
    loaded = getattr(efficientformer, class_name).from_pretrained(tmp_path)
    assert tiny.state_bytes(loaded) == tiny.state_bytes(ours)
    assert_close(loaded(tiny.pictures())[0], run(theirs, tiny.pictures())[0], 1e-5)
    settings = {**loaded.config.to_dict(), "architectures": None}
    assert {name: settings[name] for name in ours.config.to_dict()} == ours.config.to_dict()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_we_widen_half_precision_directories_of_transformers(dtype: str, tmp_path: Path) -> None:
    theirs = pair(ONE_HEAD, np.float32)[1].to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path)
    stored = read_tensors(tmp_path / "model.safetensors")["classifier.weight"]
    assert stored.dtype == (np.float16 if dtype == "float16" else np.float32)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert loaded.dtype == np.float32
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], tensor.double().numpy())
    assert_close(loaded(tiny.pictures()).logits, run(theirs.float().train().eval(), tiny.pictures()).logits, 1e-5)


def test_both_read_one_head_of_two_alike(tmp_path: Path) -> None:
    tiny.model(TWO_HEADS).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="does not use"):
        ours = getattr(efficientformer, ONE_HEAD).from_pretrained(tmp_path)
    theirs = getattr(hf, ONE_HEAD).from_pretrained(tmp_path).eval()
    assert_close(ours(tiny.pictures()).logits, run(theirs, tiny.pictures()).logits, 1e-5)


def test_both_read_the_bare_model_of_a_classifier_alike(tmp_path: Path) -> None:
    tiny.model(ONE_HEAD).save_pretrained(tmp_path)
    ours = getattr(efficientformer, BARE).from_pretrained(tmp_path)
    theirs = getattr(hf, BARE).from_pretrained(tmp_path).eval()
    assert_close(ours(tiny.pictures())[0], run(theirs, tiny.pictures())[0], 1e-5)


def test_a_missing_head_is_made_up_by_transformers_and_refused_here(tmp_path: Path) -> None:
    tiny.model(BARE).save_pretrained(tmp_path)
    _, info = getattr(hf, ONE_HEAD).from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    with pytest.raises(ValueError, match=r": missing classifier\.weight; missing classifier\.bias$"):
        getattr(efficientformer, ONE_HEAD).from_pretrained(tmp_path)


def test_tensors_load_as_arrays_do() -> None:
    theirs = pair(TWO_HEADS, np.float32)[1]
    state = random_state(tiny.model(TWO_HEADS).state_dict())
    theirs.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    ours = getattr(efficientformer, TWO_HEADS)(tiny.config()).load_state_dict(dict(theirs.state_dict()))
    assert_close(ours(tiny.pictures()).logits, run(theirs.train().eval(), tiny.pictures()).logits, 1e-5)
