"""Random weights: no value on the way is a denormal, or of another order than 1 to 1000."""

import numpy as np
import pytest

from npformer import watch
from npformer.bench.weights import randomize
from npformer.models.registry import model_config
from tests import tiny
from tests.sweep import sweep

SMALLEST_NORMAL = np.finfo(np.float32).smallest_normal


def randomized(name, size=None, seed=0):
    config, architecture = model_config(name, **({"image_size": size} if size else {}))
    return randomize(architecture(config, init_weights=False), config.image_size, seed)


def pictures(size, draw):
    return np.random.default_rng(100 + draw).standard_normal((1, 3, size, size), np.float32)


# A small and a deep one of each family; the deepest of all on pictures that cost less than its own.
SMALL = [("efficientformer-l1", 224), ("efficientnet-b0", 224), ("swiftformer-xs", 224)]
DEEP = [("efficientformer-l3", 224), ("efficientnet-b8", 128), ("swiftformer-l3", 224)]


@pytest.mark.parametrize(("name", "size"), sweep([*SMALL, *DEEP], default=SMALL))
def test_every_value_is_of_order_one_to_a_thousand(name, size):
    model = randomized(name, size)
    bad, largest = [], {}

    def look(value_name, module, inputs, output, layout):
        sizes = np.abs(output)
        largest[value_name] = float(sizes.max())
        if ((sizes > 0) & (sizes < SMALLEST_NORMAL)).any() or not np.isfinite(sizes).all():
            bad.append(value_name)
        return output

    with watch(model, look):
        logits = model(pictures(size, 1)).logits
    assert not bad
    assert len(largest) > 100
    assert max(largest.values()) < 2000
    # Probabilities and gates are of order one too; nothing fades out.
    assert min(largest.values()) > 0.02
    assert 0.3 < logits.std() < 3
    other = model(pictures(size, 2)).logits
    assert np.abs(other - logits).max() > 0.01 * np.abs(logits).max(), "the picture is seen in the logits"


def test_the_same_seed_gives_the_same_weights_and_another_others():
    first, again, other = (tiny.model(tiny.ONE_HEAD) for _ in range(3))
    before = tiny.model(tiny.ONE_HEAD).state_dict()
    randomize(first, 64), randomize(again, 64), randomize(other, 64, seed=1)
    assert tiny.state_bytes(first) == tiny.state_bytes(again)
    assert tiny.state_bytes(first) != tiny.state_bytes(other)
    for name, array in first.state_dict().items():
        assert array.dtype == before[name].dtype, name
        if np.issubdtype(array.dtype, np.integer):
            np.testing.assert_array_equal(array, before[name])
