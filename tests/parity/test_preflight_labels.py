"""The order of the port's classes against ours, by name and by logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer.assets.imagenet import imagenet_labels
from npformer.parity.noise import round_to
from npformer.parity.preflight import check_labels, check_logit_order, read_port_labels
from npformer.parity.report import Finding
from tests import tiny
from tests.support import NET, ONE_HEAD, SWIFT

NAMES = ["zebra", "Ankle boot", "coat", "T-shirt, top", "bag"]
DTYPES = ["float32", "float16", "bfloat16"]


class Model:
    """Stub of a model: the number of its classes, and their names."""

    def __init__(self, names: list[str]) -> None:
        self.config: Any = type("Config", (), {"num_labels": len(names), "id2label": dict(enumerate(names))})()


def named(names: list[str] = NAMES) -> Any:
    return Model(names)


def imagenet() -> Any:
    return Model([f"LABEL_{i}" for i in range(1000)])


def only(findings: list[Finding], bad: bool = True) -> str:
    assert len(findings) == 1
    assert findings[0].kind == "labels"
    assert findings[0].bad == bad
    return findings[0].text


@pytest.mark.parametrize("name", [ONE_HEAD, NET, SWIFT])
def test_the_models_own_labels_are_in_order(name: str) -> None:
    model = tiny.model(name, id2label=dict(enumerate(NAMES)))
    assert check_labels(model, NAMES) == []
    assert check_labels(model, dict(enumerate(NAMES))) == []
    assert check_labels(model, {str(i): n for i, n in reversed(list(enumerate(NAMES)))}) == []
    assert "one place on" in only(check_labels(model, NAMES[-1:] + NAMES[:-1]))


def test_a_thousand_unnamed_classes_are_imagenets() -> None:
    labels = imagenet_labels()
    assert check_labels(imagenet(), labels) == []
    assert check_labels(imagenet(), [f"LABEL_{i}" for i in range(1000)]) == []
    text = only(check_labels(imagenet(), [*labels[1:], labels[0]]))
    assert "one place back" in text
    assert "0 is 'goldfish, Carassius auratus' instead of 'tench, Tinca tinca'" in text
    assert "more" in text


def test_other_spellings_are_no_other_order() -> None:
    labels = imagenet_labels()
    for spelled in (
        [label.split(",")[0] for label in labels],
        [f"n{i:08} {label}" for i, label in enumerate(labels)],
        [label.upper().replace(" ", "_") for label in labels],
    ):
        text = only(check_labels(imagenet(), spelled), bad=False)
        assert "their order is ours" in text
    spelled[7], spelled[9] = spelled[9], spelled[7]
    assert "2 of 1000 differ; 7 is 'OSTRICH,_STRUTHIO_CAMELUS' instead of 'cock'" in only(
        check_labels(imagenet(), spelled)
    )


def test_usual_orders_are_named() -> None:
    labels = imagenet_labels()
    orders = {
        "alphabetical": sorted(labels, key=str.casefold),
        "alphabetical, capitals first": sorted(labels),
        "reversed": labels[::-1],
        "sorted by their numbers as text (0, 1, 10, 100": [labels[int(k)] for k in sorted(map(str, range(1000)))],
        "one place on, the last class first": labels[-1:] + labels[:-1],
    }
    for text, order in orders.items():
        found = only(check_labels(imagenet(), order))
        assert f"in another order: {text}" in found
    capitals = check_labels(named(), sorted(NAMES))
    assert "alphabetical, capitals first" in only(capitals)
    assert "in another order: alphabetical;" in only(check_labels(named(), sorted(NAMES, key=str.casefold)))


def test_a_background_class() -> None:
    text = only(check_labels(imagenet(), ["background", *imagenet_labels()]))
    assert (
        text
        == "the port has 1001 classes instead of 1000: 'background' stands before ours, so that all are shifted by one"
    )
    text = only(check_labels(named(), [*NAMES, "other"]))
    assert text == "the port has 6 classes instead of 5: 'other' stands after ours"
    assert "4 classes instead of 5; 2 is" in only(check_labels(named(), NAMES[:2] + NAMES[3:]))


def test_any_other_order_and_other_classes() -> None:
    moved = [NAMES[i] for i in (1, 0, 2, 4, 3)]
    text = only(check_labels(named(), moved))
    assert text == (
        "the port's classes are in another order: 4 of 5 differ; 0 is 'Ankle boot' instead of 'zebra', 1 is 'zebra' "
        "instead of 'Ankle boot', 3 is 'bag' instead of 'T-shirt, top', 4 is 'T-shirt, top' instead of 'bag'"
    )
    text = only(check_labels(named(), [*NAMES[:4], "sandal"]))
    assert text == "the port's classes are other ones: 1 of 5 differ; 4 is 'sandal' instead of 'bag'"


def test_two_classes_of_one_name() -> None:
    """ImageNet has two cranes: the list is compared place by place, not as a set."""
    labels = imagenet_labels()
    cranes = [i for i, label in enumerate(labels) if label == "crane"]
    assert len(cranes) == 2
    moved = list(labels)
    moved[cranes[0]], moved[0] = moved[0], moved[cranes[0]]
    assert "in another order: 2 of 1000 differ" in only(check_labels(imagenet(), moved))


def test_wordnet_ids() -> None:
    ids = [f"n{1440764 + 7 * i:08}" for i in range(1000)]
    assert "in the order of ImageNet's classes" in only(check_labels(imagenet(), ids), bad=False)
    ids[3], ids[4] = ids[4], ids[3]
    text = only(check_labels(imagenet(), ids))
    assert f"{ids[4]} (4) comes after {ids[3]}" in text
    assert "999 classes" in only(check_labels(imagenet(), ids[1:]))


def test_classes_without_names() -> None:
    unnamed = [f"LABEL_{i}" for i in range(5)]
    assert "the port's classes have no names" in only(check_labels(named(), unnamed), bad=False)
    assert "our classes have no names" in only(check_labels(named(unnamed), NAMES), bad=False)
    with pytest.raises(ValueError, match="keys 0 to 1"):
        check_labels(named(), {0: "a", 2: "b"})


def test_labels_are_read_from_all_usual_files(tmp_path: Path) -> None:
    contents = {
        "lines.txt": "\n".join(NAMES),
        "list.json": json.dumps(NAMES),
        "mapping.json": json.dumps({str(i): name for i, name in enumerate(NAMES)}),
        "config.json": json.dumps({"id2label": {str(i): name for i, name in enumerate(NAMES)}, "hidden_act": "gelu"}),
        "keras.json": json.dumps({str(i): [f"n{i:08}", name] for i, name in enumerate(NAMES)}),
    }
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
        assert read_port_labels(tmp_path / name) == NAMES, name
        assert read_port_labels(str(tmp_path / name)) == NAMES
    for text in ('{"0": "a", "2": "b"}', "{", '{"id2label": 3}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r"bad.json must hold names"):
            read_port_labels(tmp_path / "bad.json")
    with pytest.raises(FileNotFoundError, match=r"no file .*none.txt"):
        read_port_labels(tmp_path / "none.txt")


# --- logits ----------------------------------------------------------------------------------------------------------


def logits(rows: int, classes: int) -> np.ndarray:
    return 3 * np.random.default_rng(classes).standard_normal((rows, classes)) - 1


def noisy(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return logits as computed in that dtype: off by a few units."""
    unit = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    error = 8 * unit * np.std(values) * np.random.default_rng(1).standard_normal(values.shape)
    return round_to((values + error).astype(np.float32), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "classes"), [(1, 1000), (3, 1000), (4, 17)])
def test_logits_in_order_are_no_finding(dtype: str, rows: int, classes: int) -> None:
    ours = logits(rows, classes)
    assert check_logit_order(ours, noisy(ours, dtype), dtype) is None
    other = np.random.default_rng(5).standard_normal(ours.shape)
    assert check_logit_order(ours, noisy(ours + other, dtype), dtype) is None
    assert check_logit_order(ours, noisy(3 * other - 1, dtype), dtype) is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "classes"), [(1, 1000), (3, 1000), (4, 17)])
def test_usual_orders_of_logits_are_named(dtype: str, rows: int, classes: int) -> None:
    ours = logits(rows, classes)
    labels = [f"{'Bb'[i % 2]}{(i * 7919) % 1009}" for i in range(classes)]
    orders = {
        "one place on, the last class first": np.roll(ours, 1, 1),
        "one place back, the first class last": np.roll(ours, -1, 1),
        "reversed": ours[:, ::-1],
        "numbers as text": ours[:, [int(k) for k in sorted(map(str, range(classes)))]],
        "alphabetical, capitals first": ours[:, sorted(range(classes), key=labels.__getitem__)],
        "alphabetical": ours[:, sorted(range(classes), key=lambda i: (labels[i].casefold(), i))],
    }
    for text, theirs in orders.items():
        found = check_logit_order(ours, noisy(theirs, dtype), dtype, labels)
        assert found is not None, text
        assert found.bad
        assert found.kind == "labels"
        assert found.text.endswith(text) or "(0, 1, 10" in found.text


def test_any_order_is_found_where_it_cannot_be_chance() -> None:
    for rows, classes, dtype in ((1, 1000, "float32"), (6, 17, "float16"), (8, 17, "bfloat16"), (2, 9, "float32")):
        ours = logits(rows, classes)
        order = np.arange(classes)
        order[[2, 5, 7]] = order[[5, 7, 2]]
        found = check_logit_order(ours, noisy(ours[:, order], dtype), dtype)
        assert found is not None
        assert found.text == "the port's logits are ours in another order: 2 holds our 5, 5 holds our 7, 7 holds our 2"
        rows_differ = ours[:, order]
        rows_differ[-1] = ours[-1] if rows > 1 else rows_differ[-1] + 1
        assert check_logit_order(ours, noisy(rows_differ, dtype), dtype) is None
    for dtype in ("float16", "bfloat16"):  # the sorted logits of any two pictures are about as much alike
        ours = logits(1, 1000)
        assert (
            check_logit_order(ours, noisy(ours[:, np.random.default_rng(0).permutation(1000)], dtype), dtype) is None
        )


def test_too_few_logits_prove_nothing() -> None:
    ours = logits(1, 5)
    assert check_logit_order(ours, noisy(ours[:, ::-1], "bfloat16"), "bfloat16") is None
    assert check_logit_order(ours, noisy(ours[:, ::-1], "float32"), "float32") is not None
    twins = logits(6, 17)
    twins[:, 3] = twins[:, 8]
    order = [0, 2, 1, *range(3, 17)]
    assert check_logit_order(twins, noisy(twins[:, order], "float32"), "float32") is None


def test_one_logit_more() -> None:
    ours = logits(2, 1000)
    more = np.random.default_rng(3).standard_normal((2, 1))
    found = check_logit_order(ours, noisy(np.concatenate((more, ours), 1), "float16"), "float16")
    assert found is not None
    assert found.text == "the port has 1001 logits instead of 1000: one more stands first, before ours"
    found = check_logit_order(ours, noisy(np.concatenate((ours, more), 1), "float16"), "float16")
    assert found is not None
    assert "last, after ours" in found.text
    assert check_logit_order(ours, logits(2, 1001), "float32") is None


def test_what_cannot_be_compared_is_no_finding_and_bad_arguments_are_refused() -> None:
    ours = logits(2, 5)
    for theirs in (ours[0], ours[:1], ours + np.nan, ours[:, :3]):
        assert check_logit_order(ours, theirs, "float32") is None
    assert check_logit_order(np.zeros((2, 5)), np.zeros((2, 5)), "float32") is None
    with pytest.raises(ValueError, match="shape"):
        check_logit_order(ours[0], ours, "float32")
    with pytest.raises(ValueError, match="dtype must be one of"):
        check_logit_order(ours, ours, "int8")
