"""Every layer, whole tensors, against PyTorch and transformers as installed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from npformer import AutoModelForImageClassification, record  # noqa: E402
from npformer.assets import shipped_models  # noqa: E402
from tests.live import oracle, shipped  # noqa: E402
from tests.support import CASES, TOLERANCE, fill, pixel_values  # noqa: E402

FLOOR = 2.0**-23  # of a layer's largest value, a float32 in its last place: less is rounding, whoever computes
ROWS: list[str] = []


def error(values, truth):
    return {name: float(np.abs(values[name] - truth[name]).max()) for name in truth}


def errors(truth, theirs32, ours64, ours32):
    """Every layer's largest value, and its largest error in three runs: our float64, PyTorch's float32, ours."""
    assert list(ours64) == list(truth), "the same names, in the order PyTorch computes them"
    assert all(ours64[key].shape == value.shape for key, value in truth.items())
    largest = {key: float(np.abs(value).max()) for key, value in truth.items()}
    return largest, error(ours64, truth), error(theirs32, truth), error(ours32, truth)


def judge(name, draws):
    """Check one model's errors, all draws of a layer taken as one; adds a row to the printed table."""
    largest, *runs = ({key: max(run[key] for run in runs) for key in runs[0]} for runs in zip(*draws))
    exact, theirs, ours = ({key: run[key] / largest[key] for key in run} for run in runs)
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


@pytest.mark.parametrize("name", CASES)
def test_every_layer_equals_pytorch(name):
    judge(name, [errors(*four_runs(CASES[name], draw)) for draw in range(CASES[name].draws)])


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


@pytest.mark.parametrize("name", shipped_models())
def test_every_layer_of_a_shipped_model_equals_pytorch(name):
    inputs = shipped.sample_input(name)
    model = AutoModelForImageClassification.from_pretrained(name)
    truth = oracle.record(shipped.oracle_model(name, torch.float64), inputs.astype(np.float64))
    theirs32 = oracle.record(shipped.oracle_model(name, torch.float32), inputs)
    ours64 = record(model.astype(np.float64), inputs.astype(np.float64))
    judge(name, [errors(truth, theirs32, ours64, record(model, inputs))])


@pytest.mark.parametrize("name", CASES)
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
