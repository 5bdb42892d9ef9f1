"""Teacher-forced replay: an error stays where it was made."""

import numpy as np
import pytest

from npformer import record
from npformer.parity.replay import Replay, study
from tests import tiny
from tests.support import BARE_SWIFT, NET, ONE_HEAD, SWIFT, TWO_HEADS

CLASSES = [ONE_HEAD, TWO_HEADS, NET, SWIFT, BARE_SWIFT]


@pytest.fixture(scope="module", params=CLASSES)
def setting(request):
    model = tiny.model(request.param).astype(np.float64)
    x = tiny.pictures().astype(np.float64)
    reference = record(model, x)
    return model, x, reference, study(list(reference))


def test_on_our_own_values_every_op_gives_them_again(setting):
    model, x, reference, program = setting
    replay = Replay(model, program, reference, None).run(x)
    assert list(replay.sites) == list(reference)
    for name, value in reference.items():
        np.testing.assert_array_equal(replay.sites[name].output, value, err_msg=name)
        assert list(replay.sites[name].used) == program.names[: program.names.index(name)]


def test_the_model_is_not_changed_and_nothing_is_forced_without_values(setting):
    model, x, reference, program = setting
    before = tiny.state_bytes(model)
    replay = Replay(model, program, {}, None).run(x)
    np.testing.assert_array_equal(replay.used[""], reference[""])
    assert tiny.state_bytes(model) == before


def test_an_error_is_seen_where_it_is_made_and_nowhere_else(setting):
    model, x, _, program = setting
    changed_names = program.names[3::37]
    # The port: from each of these values on it computes with something else, all else it does right.
    factors = {name: 1 + 0.1 * (i + 1) for i, name in enumerate(changed_names)}
    port = Replay(model, program, {}, lambda site, value: value * factors.get(site.name, 1)).run(x)
    replay = Replay(model, program, port.used, None).run(x)
    wrong = [
        name
        for name in program.names
        if not np.allclose(replay.sites[name].output, port.used[name], rtol=1e-9, atol=1e-12)
    ]
    alias = {n for n in wrong if any(port.used[n] is port.used[m] for m in wrong if m != n)}
    assert [name for name in wrong if name not in alias] == [name for name in changed_names if name not in alias]


def test_a_value_that_was_not_dumped_is_ours(setting):
    model, x, reference, program = setting
    given = {name: value * 1.5 for name, value in list(reference.items())[: len(program.names) // 2]}
    left_out = list(given)[-3]
    del given[left_out]
    replay = Replay(model, program, given, None).run(x)
    np.testing.assert_array_equal(replay.used[left_out], replay.sites[left_out].output)


def test_again_gives_what_a_whole_run_with_the_changed_value_gives(setting):
    model, x, reference, program = setting
    names = program.names
    dumped = {name: reference[name] for name in names[::5]}
    replay = Replay(model, program, dumped, None).run(x)
    for position in range(1, len(names) - 1, 7):
        op, until = names[position], names[min(position + 5, len(names) - 1)]
        value = replay.sites[op].output * 1.25
        whole = Replay(model, program, {**dumped, op: value}, None).run(x)
        np.testing.assert_array_equal(
            replay.again(until, {op: lambda site, v=value: v}), whole.sites[until].output, err_msg=f"{op} {until}"
        )
        later = {name: v for name, v in dumped.items() if not position < names.index(name) <= names.index(until)}
        whole = Replay(model, program, {**later, op: value}, None).run(x)
        np.testing.assert_array_equal(
            replay.again(until, {op: lambda site, v=value: v}, free=True), whole.sites[until].output
        )


def test_changes_follow_one_another(setting):
    model, x, reference, program = setting
    replay = Replay(model, program, {}, None).run(x)
    first, second, until = program.names[4], program.names[9], program.names[14]

    def half(site):
        return site.output / 2

    once = Replay(model, program, {first: reference[first] / 2}, None).run(x)
    twice = Replay(model, program, {first: reference[first] / 2, second: once.sites[second].output / 2}, None).run(x)
    np.testing.assert_array_equal(replay.again(until, {first: half, second: half}), twice.sites[until].output)
    np.testing.assert_array_equal(replay.again(second, {first: half, second: half}), once.sites[second].output / 2)


def test_a_module_that_is_called_twice_has_two_names():
    program = study(["a#1", "b", "a#2", "a", ""])
    assert [program.key("a", n) for n in (1, 2, 3)] == ["a#1", "a#2", "a"]
    assert program.key("b", 1) == "b"


def test_not_a_number_goes_through_in_silence(setting):
    model, x, reference, program = setting
    name = program.names[len(program.names) // 2]
    given = {**reference, name: np.full_like(reference[name], np.nan)}
    replay = Replay(model, program, given, None).run(x)
    np.testing.assert_array_equal(replay.sites[name].output, reference[name])
    np.testing.assert_array_equal(replay.used[""], reference[""])
