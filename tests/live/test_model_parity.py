"""Every layer, whole tensors, against PyTorch and transformers as installed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from npformer import AutoModelForImageClassification, record  # noqa: E402
from npformer.assets import shipped_models  # noqa: E402
from tests.live import oracle, shipped  # noqa: E402
from tests.support import CASES, TOLERANCE, fill, pixel_values  # noqa: E402
from tests.sweep import sweep  # noqa: E402

FLOOR = 1e-7  # of a layer's largest value: smaller errors are rounding
FEW = 10_000
ROWS: list[str] = []


def differences(truth, theirs32, ours64, ours32):
    """For every layer its largest value, and the errors of three runs: our float64, PyTorch's float32, ours."""
    assert list(ours64) == list(truth), "the same names, in the order PyTorch computes them"
    assert all(ours64[key].shape == value.shape for key, value in truth.items())
    return {
        key: [float(np.abs(value).max()), *((run[key] - value).reshape(-1) for run in (ours64, theirs32, ours32))]
        for key, value in truth.items()
    }


def judge(name, draws):
    """Check one model's errors, all draws of a layer taken as one; adds a row to the printed table."""
    exact, theirs, ours = {}, {}, {}
    for key in draws[0]:
        largest = max(draw[key][0] for draw in draws)
        error64, error_theirs, error_ours = (np.concatenate([draw[key][i] for draw in draws]) for i in (1, 2, 3))
        exact[key] = np.abs(error64).max() / largest
        # Of a few numbers the largest error is a matter of luck: there the root mean square is compared.
        measure = np.max if error_ours.size >= FEW else root_mean_square
        theirs[key], ours[key] = measure(np.abs(error_theirs)) / largest, measure(np.abs(error_ours)) / largest
    worst = max(exact, key=exact.get)
    ratio = {key: ours[key] / max(theirs[key], FLOOR / 2) for key in ours}
    steep = max(ratio, key=ratio.get)
    ROWS.append(
        f"{name:32} {len(ours):5} {exact[worst]:9.1e} {max(theirs.values()):9.1e} {max(ours.values()):9.1e} "
        f"{np.median(list(ratio.values())):7.2f} {ratio[steep]:7.2f}  {steep}"
    )
    assert exact[worst] <= TOLERANCE, worst
    beyond = {key: (ours[key], theirs[key]) for key in ours if ours[key] > max(2 * theirs[key], FLOOR)}
    assert not beyond, beyond


def root_mean_square(errors):
    return np.sqrt(np.mean(errors.astype(np.float64) ** 2))


FULL_SIZE = [
    name for name in CASES if name in ("l1", "l3", "l7") or name.startswith(("efficientnet-b", "swiftformer-"))
]
DEFAULT = ["l1", "efficientnet-b0", "swiftformer-xs", *(name for name in CASES if name not in FULL_SIZE)]


@pytest.mark.parametrize("name", sweep(CASES, DEFAULT))
def test_every_layer_equals_pytorch(name):
    judge(name, [differences(*four_runs(CASES[name], draw)) for draw in range(CASES[name].draws)])


def four_runs(case, draw):
    narrow = pixel_values(case.shape, draw).astype(np.float32)
    # The same float32 numbers everywhere: what differs is then the arithmetic alone.
    wide = narrow.astype(np.float64)
    single = fill(case.model(), np.float32, draw)
    state = {
        key: value.astype(np.float64) if value.dtype == np.float32 else value
        for key, value in single.state_dict().items()
    }
    double = case.model().astype(np.float64).load_state_dict(state)
    truth = oracle.record(oracle.load(oracle.build(case), state, torch.float64), wide)
    theirs32 = oracle.record(oracle.load(oracle.build(case), state, torch.float32), narrow)
    return truth, theirs32, record(double, wide), record(single, narrow)


@pytest.mark.parametrize("name", sweep(shipped_models(), ["efficientnet-fashion", "swiftformer-fashion"]))
def test_every_layer_of_a_shipped_model_equals_pytorch(name):
    inputs = shipped.sample_input(name, count=12)
    model = AutoModelForImageClassification.from_pretrained(name)
    truth = oracle.record(shipped.oracle_model(name, torch.float64), inputs.astype(np.float64))
    theirs32 = oracle.record(shipped.oracle_model(name, torch.float32), inputs)
    ours64 = record(model.astype(np.float64), inputs.astype(np.float64))
    judge(name, [differences(truth, theirs32, ours64, record(model, inputs))])


@pytest.mark.parametrize("name", sweep(CASES, DEFAULT))
def test_modules_and_state_dicts_pair_off_by_name(name):
    ours, theirs = CASES[name].model(), oracle.build(CASES[name])
    assert [key for key, _ in ours.named_modules()] == [key for key, _ in theirs.named_modules()]
    state = theirs.state_dict()
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: tuple(value.shape) for key, value in state.items()
    }
    assert ours.num_parameters() == sum(p.numel() for p in theirs.parameters())
    tables = [key for key in state if key.endswith("attention_bias_idxs")]
    assert all(np.array_equal(ours.state_dict()[key], state[key].numpy()) for key in tables)


def test_the_table(capsys):
    if not ROWS:
        pytest.skip("run together with the comparisons above")
    head = (
        "Errors as a fraction of each layer's largest value, the worst over all layers, against float64 PyTorch;\n"
        "median and worst ratio of our float32 error to PyTorch's.\n"
        f"{'model':32} {'values':>6} {'float64':>8} {'torch f32':>9} {'ours f32':>9} {'median':>7} {'worst':>7}  at"
    )
    with capsys.disabled():
        print(f"\n\n{head}\n" + "\n".join(ROWS))
