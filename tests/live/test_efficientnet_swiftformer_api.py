"""EfficientNet's and SwiftFormer's API against transformers': outputs, losses, refusals, and either side's files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="4.56")

import npformer  # noqa: E402
from npformer import AutoModelForImageClassification  # noqa: E402
from tests import tiny  # noqa: E402
from tests.support import BARE_NET, BARE_SWIFT, NET, SWIFT  # noqa: E402

transformers.logging.set_verbosity_error()
CLASSES = [*tiny.NET_CLASSES, *tiny.SWIFT_CLASSES]
CLASSIFIERS = [NET, SWIFT]
OWN = {"EfficientNet": {"padding"}, "SwiftFormer": {"attention_norm"}}  # settings that transformers does not have


def config_classes(family: str) -> tuple[Any, Any]:
    return getattr(npformer, f"{family}Config"), getattr(transformers, f"{family}Config")


def pair(class_name: str, dtype: Any = np.float64, **settings: Any) -> tuple[Any, Any]:
    """The same model on both sides, with the same random weights."""
    ours = tiny.model(class_name, **settings).astype(dtype)
    case = tiny.case(class_name, **settings)
    theirs = getattr(transformers, class_name)(config_classes(case.family)[1](**case.settings))
    theirs = theirs.to(torch.from_numpy(np.zeros(1, dtype)).dtype)
    theirs.load_state_dict({name: torch.tensor(array) for name, array in ours.state_dict().items()})
    return ours, theirs.eval()


def run(theirs: Any, x: np.ndarray, **options: Any) -> Any:
    with torch.no_grad():
        return theirs(torch.tensor(x), **options)


def pictures(**size: int) -> np.ndarray:
    return tiny.pictures(**size).astype(np.float64)


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


@pytest.mark.parametrize("class_name", CLASSES)
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("by", ["argument", "config"])
def test_dictionaries_hold_the_same_keys_and_values(class_name: str, hidden: bool, by: str) -> None:
    asked = {"output_hidden_states": hidden}
    ours, theirs = pair(class_name, **(asked if by == "config" else {}))
    options = asked if by == "argument" else {}
    mine, yours = ours(pictures(), **options), run(theirs, pictures(), **options)
    assert type(mine).__name__ == type(yours).__name__
    assert list(mine) == list(mine.keys()) == list(yours.keys())
    assert ("hidden_states" in mine) is hidden
    assert_close(mine.to_tuple(), yours.to_tuple())
    for key in mine:
        assert_close(getattr(mine, key), getattr(yours, key))


@pytest.mark.parametrize("class_name", CLASSES)
@pytest.mark.parametrize("hidden", [False, True])
def test_tuples_hold_the_same_values(class_name: str, hidden: bool) -> None:
    ours, theirs = pair(class_name)
    asked = {"output_hidden_states": hidden, "return_dict": False}
    assert_close(ours(pictures(), **asked), run(theirs, pictures(), **asked))
    by_config, theirs_by_config = pair(class_name, output_hidden_states=hidden, return_dict=False)
    assert_close(by_config(pictures()), run(theirs_by_config, pictures()))
    if class_name in CLASSIFIERS:
        labels = np.array([0, 4])
        mine = ours(pictures(), labels=labels, **asked)
        assert_close(mine, run(theirs, pictures(), labels=torch.tensor(labels), **asked))


@pytest.mark.parametrize("size", [(97, 130), (33, 64)])
@pytest.mark.parametrize(
    ("class_name", "settings"),
    [
        (BARE_NET, {"depthwise_padding": [1, 3], "pooling_type": "max"}),
        (NET, {"depthwise_padding": [2, 8], "hidden_act": "gelu", "squeeze_expansion_ratio": 0.6}),
        (NET, {"num_labels": 0}),
        (BARE_SWIFT, {"down_patch_size": [5, 3], "down_pad": [2, 1], "mlp_ratio": 2.5, "hidden_act": "relu"}),
        (SWIFT, {"use_layer_scale": False, "embed_dims": [4, 4, 6, 6], "downsamples": [False, False, True]}),
        (SWIFT, {"num_labels": 0, "drop_path_rate": 0.5}),
    ],
)
def test_other_settings_and_sizes(class_name: str, settings: dict[str, Any], size: tuple[int, int]) -> None:
    ours, theirs = pair(class_name, **settings)
    x = pictures(batch=3, height=size[0], width=size[1])
    options = {"output_hidden_states": True}
    assert_close(ours(x, **options).to_tuple(), run(theirs, x, **options).to_tuple())


# --- losses ----------------------------------------------------------------------------------------------------------

TARGETS = np.random.default_rng(5).standard_normal((2, 5))
YES_OR_NO = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 0, 1]])
LABELS = {  # number of labels, problem_type, labels
    "classes": (5, None, np.array([3, 0])),
    "classes, one not counted": (5, None, np.array([3, -100])),
    "classes by name": (5, "single_label_classification", np.array([3, 0])),
    "yes or no": (5, None, YES_OR_NO.astype(np.float64)),
    "yes or no by name": (5, "multi_label_classification", YES_OR_NO.astype(np.float64)),
    "one number": (1, None, TARGETS[:, 0]),
    "one number in a column": (1, None, TARGETS[:, :1]),
    "five numbers": (5, "regression", TARGETS),
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("class_name", CLASSIFIERS)
def test_losses_are_the_same(class_name: str, kind: str) -> None:
    number, problem_type, labels = LABELS[kind]
    ours, theirs = pair(class_name, num_labels=number, problem_type=problem_type)
    mine, yours = ours(pictures(), labels=labels), run(theirs, pictures(), labels=torch.tensor(labels))
    assert list(mine) == list(yours) == ["loss", "logits"]
    assert_close(mine.to_tuple(), yours.to_tuple())
    assert ours.config.problem_type == problem_type
    assert theirs.config.problem_type is not None  # stored there by the call


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "problem_type", "labels"),
    [
        (5, None, np.array([0, 5])),
        (5, None, np.array([0, -1])),
        (5, None, np.array([0, 1, 2])),
        (5, None, np.array([0.0, 1.0])),
        (5, "multi_label_classification", np.array([3, 0])),
        (0, None, np.array([3, 0])),
    ],
)
@pytest.mark.parametrize("class_name", CLASSIFIERS)
def test_labels_that_do_not_fit_are_refused_alike(
    class_name: str, number: int, problem_type: str | None, labels: np.ndarray
) -> None:
    ours, theirs = pair(class_name, num_labels=number, problem_type=problem_type)
    with pytest.raises((ValueError, IndexError), match="labels do not fit"):
        ours(pictures(), labels=labels)
    with pytest.raises((ValueError, IndexError, RuntimeError)):
        run(theirs, pictures(), labels=torch.tensor(labels))


@pytest.mark.parametrize("class_name", CLASSES)
def test_pictures_that_do_not_fit_are_refused_alike(class_name: str) -> None:
    ours, theirs = pair(class_name)
    for model in (ours, theirs):
        with pytest.raises(ValueError, match="pixel_values"):
            model()
    refused = [pictures(channels=1), pictures(height=0), np.zeros((2, 3, 64))]
    if class_name in tiny.NET_CLASSES:
        refused.append(pictures(height=31))
    for x in refused:
        with pytest.raises(ValueError, match=r"pixel_values|too small"):
            ours(x)
        with pytest.raises((RuntimeError, ValueError)):
            run(theirs, x)


@pytest.mark.parametrize(
    ("class_name", "settings"),
    [
        (BARE_NET, {"pooling_type": "avg"}),
        (BARE_NET, {"hidden_dim": 64}),
        (BARE_NET, {"in_channels": [32, 16, 24, 40, 80, 112, 200]}),
        (BARE_NET, {"hidden_act": "swoosh"}),
        (BARE_NET, {"strides": [1, 2, 2, 2, 1, 2]}),
        (BARE_NET, {"width_coefficient": "wide"}),
        (BARE_SWIFT, {"embed_dims": [4, 6, 8]}),
        (BARE_SWIFT, {"hidden_act": "swoosh"}),
        (BARE_SWIFT, {"down_stride": 0}),
        (BARE_SWIFT, {"downsamples": [True]}),
    ],
)
def test_settings_that_fit_no_model_are_refused_here_at_once_and_there_sooner_or_later(
    class_name: str, settings: dict[str, Any]
) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{next(iter(settings))} must be "):
        tiny.config(class_name, **settings)
    case = tiny.case(class_name, **settings)

    def run_theirs() -> None:
        config = config_classes(case.family)[1](**case.settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about layers without weights
            run(getattr(transformers, class_name)(config), tiny.pictures())

    with pytest.raises((ValueError, TypeError, AttributeError, KeyError, IndexError, RuntimeError)):
        run_theirs()


# --- configs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", OWN)
def test_defaults_are_the_same(family: str) -> None:
    ours, theirs = (cls().to_dict() for cls in config_classes(family))
    for name, value in ours.items():
        if name not in OWN[family]:
            assert theirs[name] == value, name
    assert OWN[family].isdisjoint(theirs)


@pytest.mark.parametrize("family", OWN)
def test_configs_of_either_side_load_on_the_other(family: str, tmp_path: Path) -> None:
    labels = ["cat", "dog", "eel", "fox", "gnu"]
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    settings = {**tiny.FAMILY_SETTINGS[family], **named, "crop_pct": 0.9, "output_hidden_states": True}
    del settings["num_labels"]
    our_class, their_class = config_classes(family)
    ours, theirs = our_class(**settings), their_class(**settings)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    for directory in ("ours", "theirs"):
        for cls in (our_class, their_class):
            loaded = cls.from_pretrained(tmp_path / directory).to_dict()
            expected = ours.to_dict()
            if directory == "theirs" and cls is their_class:
                expected = {name: value for name, value in expected.items() if name not in OWN[family]}
            assert {name: loaded[name] for name in expected} == expected


@pytest.mark.parametrize("family", OWN)
def test_config_files_are_the_same_but_for_our_own_settings(family: str) -> None:
    """Every value in transformers' file is in ours; ours has all others, too, and says which are our own."""
    ours, theirs = (json.loads(cls(num_labels=3).to_json_string()) for cls in config_classes(family))
    del theirs["transformers_version"]
    assert {name: ours[name] for name in theirs} == theirs
    whole = json.loads(config_classes(family)[1](num_labels=3).to_json_string(use_diff=False))
    assert ours.keys() - whole.keys() == OWN[family]


# --- directories -----------------------------------------------------------------------------------------------------


def load_theirs(class_name: str, directory: Path) -> Any:
    """transformers' loading, which must neither miss nor ignore a key."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, info = getattr(transformers, class_name).from_pretrained(directory, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), info
    return model.eval()


@pytest.mark.parametrize("max_shard_size", [10**9, 8000])
@pytest.mark.parametrize("class_name", CLASSES)
def test_transformers_loads_our_directories(class_name: str, max_shard_size: int, tmp_path: Path) -> None:
    ours = tiny.model(class_name)
    ours.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (max_shard_size == 8000)
    theirs = load_theirs(class_name, tmp_path)
    assert type(theirs).__name__ == class_name == theirs.config.architectures[0]
    assert theirs.dtype == torch.float32
    assert_close(ours(tiny.pictures())[0], run(theirs, tiny.pictures())[0], 1e-5)


@pytest.mark.parametrize("max_shard_size", ["5GB", "8KB"])
@pytest.mark.parametrize("class_name", CLASSES)
def test_we_load_directories_of_transformers(class_name: str, max_shard_size: str, tmp_path: Path) -> None:
    ours, theirs = pair(class_name, np.float32)
    theirs.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (max_shard_size == "8KB")
    loaded = getattr(npformer, class_name).from_pretrained(tmp_path)
    assert tiny.state_bytes(loaded) == tiny.state_bytes(ours)
    np.testing.assert_array_equal(loaded(tiny.pictures())[0], ours(tiny.pictures())[0])
    assert_close(loaded(tiny.pictures())[0], run(theirs, tiny.pictures())[0], 1e-5)
    settings = {**loaded.config.to_dict(), "architectures": None}
    assert {name: settings[name] for name in ours.config.to_dict()} == ours.config.to_dict()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("class_name", CLASSIFIERS)
def test_we_widen_half_precision_directories_of_transformers(class_name: str, dtype: str, tmp_path: Path) -> None:
    theirs = pair(class_name, np.float32)[1].to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert type(loaded).__name__ == class_name
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], tensor.double().numpy())
    assert_close(loaded(tiny.pictures()).logits, run(theirs.float(), tiny.pictures()).logits, 1e-5)


@pytest.mark.parametrize(("class_name", "bare"), [(NET, BARE_NET), (SWIFT, BARE_SWIFT)])
def test_both_read_the_bare_model_of_a_classifier_alike(class_name: str, bare: str, tmp_path: Path) -> None:
    tiny.model(class_name).save_pretrained(tmp_path)
    ours = getattr(npformer, bare).from_pretrained(tmp_path)
    theirs = getattr(transformers, bare).from_pretrained(tmp_path).eval()
    assert_close(ours(tiny.pictures())[0], run(theirs, tiny.pictures())[0], 1e-5)


@pytest.mark.parametrize(("class_name", "bare"), [(NET, BARE_NET), (SWIFT, BARE_SWIFT)])
def test_a_missing_head_is_made_up_by_transformers_and_refused_here(
    class_name: str, bare: str, tmp_path: Path
) -> None:
    tiny.model(bare).save_pretrained(tmp_path)
    _, info = getattr(transformers, class_name).from_pretrained(tmp_path, output_loading_info=True)
    with pytest.raises(ValueError, match=r": missing ") as error:
        getattr(npformer, class_name).from_pretrained(tmp_path)
    listed = {entry.removeprefix("missing ") for entry in str(error.value).split(": ")[-1].split("; ")}
    assert listed == {name for name in info["missing_keys"] if "num_batches_tracked" not in name}
