"""Fused models equal the readable ones, on any number of threads; wrong folding does not pass."""

import copy
import pickle
import sys
import threading
import tracemalloc
import warnings

import numpy as np
import pytest

import npformer
from npformer import fuse, get_model, record, summary, watch
from npformer.fast import kernels
from npformer.models import efficientformer, efficientnet, swiftformer
from npformer.nn import BatchNorm2d
from tests import tiny
from tests.support import CASES, ODD, SMALLEST, TOLERANCE, fill, pixel_values
from tests.sweep import sweep
from tests.tiny import CLASSES, NET_CLASSES, SWIFT_CLASSES

EVERY_CLASS = [*CLASSES, *NET_CLASSES, *SWIFT_CLASSES]
FAMILIES = {"EfficientFormer": CLASSES[2], "EfficientNet": NET_CLASSES[1], "SwiftFormer": SWIFT_CLASSES[1]}


@pytest.fixture(autouse=True)
def one_thread():
    """But where a test asks for more: threads that wait awake take time from other tests."""
    npformer.set_num_threads(1)
    yield
    npformer.set_num_threads(None)


@pytest.fixture
def two_threads(one_thread):
    npformer.set_num_threads(2)


def largest_difference(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


def outputs(model, x):
    """Every array a model returns: the main one, hidden states and attentions."""
    options = {"output_hidden_states": True}
    if "Former" in type(model).__name__ and "Swift" not in type(model).__name__:
        options["output_attentions"] = True
    out = model(x, **options)
    return [array for value in out.to_tuple() for array in (value if isinstance(value, tuple) else (value,))]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", sweep(CASES, default=ODD))  # published ones: the next test
def test_a_fused_model_returns_the_same_in_float64(name):
    case = CASES[name]
    model = fill(case.model(), np.float64)
    x = pixel_values(case.shape)
    fused = fuse(model)
    assert type(fused) is type(model)
    for actual, expected in zip(outputs(fused, x), outputs(model, x), strict=True):
        assert actual.shape == expected.shape
        assert actual.dtype == np.float64
        assert largest_difference(actual, expected) <= TOLERANCE


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", SMALLEST)
def test_rounding_of_a_fused_model_is_that_of_the_readable_one(name):
    """Each against the float64 truth. PyTorch's errors are at least half of the readable model's (live tests)."""
    case = CASES[name]
    x = pixel_values(case.shape).astype(np.float32)
    truth = outputs(fill(case.model(), np.float64), x.astype(np.float64))
    model = fill(case.model(), np.float32)
    for exact, readable, fast in zip(truth, outputs(model, x), outputs(fuse(model), x), strict=True):
        assert fast.dtype == np.float32
        errors = [np.sqrt(np.mean((values - exact) ** 2)) for values in (readable, fast)]
        assert errors[1] <= 2 * errors[0]


# Pictures and threads: pieces of one picture, one picture for each thread, several, with some left over, or too few.
SHARED = [(size, threads) for size in (1, 2, 3, 5, 9) for threads in (1, 2, 3, 8)]


def is_default(case):
    few = [(1, 1), (1, 3), (2, 3), (3, 8), (5, 2), (9, 2)] if case[0] in FAMILIES.values() else [(1, 2), (9, 3)]
    return case[1:] in few


@pytest.mark.parametrize(
    ("name", "size", "threads"), sweep([(name, *shared) for name in EVERY_CLASS for shared in SHARED], is_default)
)
def test_every_size_of_batch_gives_the_same_for_each_picture(name, size, threads):
    model = tiny.model(name).astype(np.float64)
    x = np.random.default_rng(3).standard_normal((size, 3, 64, 64))
    npformer.set_num_threads(threads)
    for actual, expected in zip(outputs(fuse(model), x), outputs(model, x), strict=True):
        assert largest_difference(actual, expected) <= TOLERANCE


@pytest.mark.parametrize("name", EVERY_CLASS)
def test_an_empty_batch_is_as_empty_as_before(name):
    x = np.zeros((0, 3, 64, 64), np.float32)
    model = tiny.model(name)
    assert fuse(model)(x).main.shape == model(x).main.shape


@pytest.mark.parametrize("name", EVERY_CLASS)
def test_arguments_and_refusals_are_those_of_the_readable_model(name):
    model = tiny.model(name)
    fused = fuse(model)
    x = np.random.default_rng(0).standard_normal((3, 3, 64, 64)).astype(np.float32)
    as_tuple = fused(x, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert np.array_equal(as_tuple[0], fused(x).main)
    for wrong in (None, x[0], x.astype(np.int64), x[:, :2], x[:, :, :0], [1]):
        with pytest.raises((TypeError, ValueError)) as expected:
            model(wrong)
        with pytest.raises(type(expected.value)) as actual:
            fused(wrong)
        assert str(actual.value) == str(expected.value)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", [CLASSES[1], NET_CLASSES[1], SWIFT_CLASSES[1]])
def test_the_loss_is_that_of_the_whole_batch(name):
    model = tiny.model(name).astype(np.float64)
    x, labels = np.random.default_rng(0).standard_normal((7, 3, 64, 64)), [0, 1, 2, 3, 4, 0, 1]
    assert abs(fuse(model)(x, labels=labels).loss - model(x, labels=labels).loss) < 1e-11


@pytest.mark.parametrize("name", EVERY_CLASS)
def test_features_are_the_same(name):
    model = tiny.model(name).astype(np.float64)
    x = np.random.default_rng(0).standard_normal((3, 3, 64, 64))
    for actual, expected in zip(fuse(model).extract_feat(x), model.extract_feat(x), strict=True):
        assert largest_difference(actual, expected) <= TOLERANCE


@pytest.mark.parametrize("name", EVERY_CLASS)
def test_the_model_given_stays_as_it_is_and_shares_what_is_not_folded(name):
    model = tiny.model(name)
    before = {key: value.copy() for key, value in model.state_dict().items()}
    fused = fuse(model)
    assert fuse(fused) is fused
    assert fused.is_fused
    assert not model.is_fused
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(np.array_equal(after[key], before[key]) for key in before)
    shared = [key for key, value in fused.state_dict().items() if value is after.get(key)]
    assert all(key in shared for key in before if key.startswith(("classifier", "head", "dist_head")))


@pytest.mark.parametrize("name", EVERY_CLASS)
def test_nothing_is_left_of_batch_norms_and_layer_scales_in_the_blocks(name):
    fused = fuse(tiny.model(name))
    left = [name for name, module in fused.named_modules() if isinstance(module, BatchNorm2d)]
    assert left == (["norm"] if name == SWIFT_CLASSES[1] else [])
    assert not [name for name in fused.state_dict() if "layer_scale" in name]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", EVERY_CLASS)
def test_a_recording_has_the_names_that_still_exist_and_says_so(name):
    model = tiny.model(name).astype(np.float64)
    x = np.random.default_rng(0).standard_normal((5, 3, 64, 64))
    whole = record(model, x)
    with pytest.warns(UserWarning, match="the model is fused: its blocks, stages and outputs are recorded"):
        blocks = record(fuse(model), x)
    assert "" in blocks
    assert len(blocks) > 8
    assert [key for key in whole if key in blocks] == list(blocks)  # the same names, in the same order
    for key, value in blocks.items():
        assert blocks.layouts[key] == whole.layouts[key]
        assert largest_difference(value, whole[key]) <= TOLERANCE


def test_an_observer_may_replace_the_result_of_a_fused_block():
    fused = fuse(tiny.model(NET_CLASSES[1]))
    x = np.ones((2, 3, 64, 64), np.float32)

    def black_out(name, module, inputs, output, layout):
        return np.zeros_like(output) if name.endswith("encoder.blocks.3") else output

    with watch(fused, black_out):
        changed = fused(x).logits
    assert not np.allclose(changed, fused(x).logits)


def test_what_needs_every_layer_is_refused():
    fused, x = fuse(tiny.model()), np.zeros((1, 3, 64, 64), np.float32)
    for doing, act in (
        ("saving", lambda: fused.save_pretrained("nowhere")),
        ("a summary", lambda: summary.summarize(fused, 64, 64)),
        ("a comparison", lambda: npformer.compare(fused, x, {"": x})),
    ):
        with pytest.raises(ValueError, match=f"{doing} needs every layer, and model is fused"):
            act()
    with pytest.raises(TypeError, match="model must be a model of npformer's"):
        fuse(fused.state_dict())


def test_get_model_fuses_when_asked():
    fused = get_model("efficientnet-fashion", pretrained=True, fused=True)
    model = get_model("efficientnet-fashion", pretrained=True)
    x = np.random.default_rng(0).standard_normal((2, 3, 96, 96)).astype(np.float32)
    assert fused.is_fused
    assert not model.is_fused
    assert np.allclose(fused(x).logits, model(x).logits, atol=1e-4)
    assert get_model("swiftformer-xs", fused=True, seed=0, num_labels=3).is_fused


@pytest.mark.parametrize("name", EVERY_CLASS)
def test_fused_models_can_be_copied_pickled_and_cast(name):
    fused = fuse(tiny.model(name))
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    expected = fused(x).main
    assert np.array_equal(copy.deepcopy(fused)(x).main, expected)
    assert np.array_equal(pickle.loads(pickle.dumps(fused))(x).main, expected)
    wide = fused.astype(np.float64)
    assert wide(x).main.dtype == np.float64
    assert largest_difference(wide(x).main, expected) < 1e-4


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("size", [1, 6])
@pytest.mark.parametrize("name", sweep([*FAMILIES.values(), *SMALLEST], default=[*FAMILIES.values()]))
def test_callers_on_eight_threads_get_bit_identical_answers(name, size):
    fused = fuse(fill(CASES[name].model(), np.float32) if name in CASES else tiny.model(name))
    side = {"l1": 224, "efficientnet-b0": 96, "swiftformer-xs": 96}.get(name, 64)
    x = np.random.default_rng(0).standard_normal((size, 3, side, side)).astype(np.float32)
    alone, answers = fused(x).logits, [[] for _ in range(8)]
    assert np.array_equal(fused(x).logits, alone)  # from run to run
    together = threading.Barrier(8)

    def call(mine):
        together.wait()
        mine.extend(fused(x).logits for _ in range(2))

    callers = [threading.Thread(target=call, args=(mine,)) for mine in answers]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(len(mine) == 2 for mine in answers)
    assert all(np.array_equal(answer, alone) for mine in answers for answer in mine)


@pytest.mark.parametrize("name", SMALLEST)
def test_a_second_call_allocates_almost_nothing(name):
    fused = fuse(fill(CASES[name].model(), np.float32))
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    for _ in range(3):
        fused(x)
    tracemalloc.start()
    fused(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000  # a first call takes ten times as much


@pytest.mark.usefixtures("two_threads")
def test_results_of_earlier_calls_are_never_overwritten():
    fused = fuse(tiny.model(SWIFT_CLASSES[0]))
    pictures = np.random.default_rng(0).standard_normal((6, 2, 3, 64, 64)).astype(np.float32)
    kept = [fused(x, output_hidden_states=True) for x in pictures]
    copies = [[np.array(state) for state in out.hidden_states] for out in kept]
    for x in pictures[::-1]:
        fused(x)
    for out, states in zip(kept, copies, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(out.hidden_states, states, strict=True))


@pytest.mark.parametrize("name", FAMILIES.values())
def test_memory_hardly_grows_with_the_batch(name):
    """A few pictures are worked on at a time; the readable model holds every map of all of them."""
    model = tiny.model(name)
    x = np.random.default_rng(0).standard_normal((24, 3, 64, 64)).astype(np.float32)
    peaks = []
    for run in (fuse(model), model):
        run(x[:4])
        tracemalloc.start()
        run(x)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < peaks[1] / 5


# Folding gone wrong in the ways one gets it wrong: every model of the family must notice.


def without_eps(affine):
    def mutant(norm):
        if not isinstance(norm, BatchNorm2d):
            return affine(norm)
        changed = copy.copy(norm)
        changed.eps = 1e-5 if norm.eps != 1e-5 else 1e-3
        return affine(changed)

    return mutant


def without_mean(affine):
    def mutant(norm):
        scale, _ = affine(norm)
        return scale, norm.bias.astype(np.float64)

    return mutant


def deviation_for_variance(affine):
    def mutant(norm):
        if not isinstance(norm, BatchNorm2d):
            return affine(norm)
        scale = norm.weight / (norm.running_var.astype(np.float64) + norm.eps)
        return scale, norm.bias - norm.running_mean * scale

    return mutant


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mutant", [without_eps, without_mean, deviation_for_variance])
def test_wrong_affines_are_noticed(monkeypatch, family, mutant):
    module = sys.modules["npformer.fuse"]  # `npformer.fuse` itself is the function
    notices(family, lambda: monkeypatch.setattr(module, "_affine", mutant(module._affine)))


FILTER_MUTANTS = {
    "norm's shift without its scale on the bias": ("then", lambda f, norm, fold: _changed(fold(f, norm), bias=f.bias)),
    "layer scale left out": ("scaled", lambda f, factor, fold: fold(f, None if np.ndim(factor) else factor)),
    "layer scale not on the bias": (
        "scaled",
        lambda f, factor, fold: _changed(fold(f, factor), bias=f.bias) if np.ndim(factor) else fold(f, factor),
    ),
    "norm before without its shift": ("after", lambda f, norm, fold: _changed(fold(f, norm), bias=f.bias)),
    "activation's factor left out": ("fed", lambda f, factor, fold: f),
}
NOTICED_BY = {
    "norm's shift without its scale on the bias": ["EfficientFormer", "EfficientNet", "SwiftFormer"],
    "layer scale left out": ["EfficientFormer", "SwiftFormer"],
    "layer scale not on the bias": ["EfficientFormer", "SwiftFormer"],
    "norm before without its shift": ["EfficientFormer", "SwiftFormer"],
    "activation's factor left out": ["EfficientFormer", "SwiftFormer"],
}


def _changed(filters, **values):
    changed = copy.copy(filters)
    for name, value in values.items():
        setattr(changed, name, value)
    return changed


@pytest.mark.parametrize(("what", "family"), [(what, f) for what, families in NOTICED_BY.items() for f in families])
def test_wrong_folding_is_noticed(monkeypatch, what, family):
    filters = sys.modules["npformer.fuse"]._Filters
    method, mutant = FILTER_MUTANTS[what]
    fold = getattr(filters, method)
    notices(family, lambda: monkeypatch.setattr(filters, method, lambda f, x: mutant(f, x, fold)))


KERNEL_MUTANTS = {
    "zeros at the border of a pooled map": (
        "strip_of_means",
        lambda x, rows: kernels.strip(x, rows, 3, 1, ((1, 1), (1, 1))),
        ["EfficientFormer"],
    ),
    "bias of the narrow product twice": (
        "add_to_rows",
        lambda x, bias: x.__iadd__(2 * bias),
        ["EfficientFormer", "EfficientNet", "SwiftFormer"],
    ),
}


@pytest.mark.parametrize(
    ("what", "family"), [(what, family) for what, (_, _, families) in KERNEL_MUTANTS.items() for family in families]
)
def test_wrong_kernels_are_noticed(monkeypatch, what, family):
    name, mutant, _ = KERNEL_MUTANTS[what]
    notices(family, lambda: monkeypatch.setattr(kernels, name, mutant))


def notices(family, break_it):
    """Fusing right gives the same logits; after `break_it` they are far off."""
    model = tiny.model(FAMILIES[family]).astype(np.float64)
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64))
    expected = model(x).logits
    assert largest_difference(fuse(model)(x).logits, expected) <= TOLERANCE
    break_it()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert largest_difference(fuse(model)(x).logits, expected) > 1e-6


def test_every_block_that_has_a_fused_twin_is_replaced():
    module = sys.modules["npformer.fuse"]
    for family in (efficientformer, efficientnet, swiftformer):
        assert any(kind.__module__ == family.__name__ for kind in module._FUSED)
    for name in EVERY_CLASS:
        left = [
            type(module_) for _, module_ in fuse(tiny.model(name)).named_modules() if type(module_) in module._FUSED
        ]
        assert not left
