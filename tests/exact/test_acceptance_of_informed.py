"""The lines that make informed proposals exact, each against numbers worked out by hand; like test_acceptance.py."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.kernels import RandomWalk, State
from gfnmc.kernels.informed import InformedKernel, Move, Surroundings, View, chosen, draw_change
from gfnmc.targets import Target
from tests.exact.test_acceptance_of_many import GRID, HEIGHTS, INF, Told, numbers, target, tempered_heights, whole
from tests.support import CountingTarget, assert_close, is_identical


class Around(Surroundings):
    """One place up (change 0) or down (change 1), with costs that tell the places apart."""

    num_changes, is_exact = 2, True

    def __init__(self, counted_as: str | None) -> None:
        self.counted_as = counted_as
        self.looks: list[tuple[list, list, list]] = []

    def mask(self, x: Tensor) -> Tensor:
        return torch.cat([x < 5, x > 0], 1)

    def changed(self, x: Tensor, changes: Tensor) -> Tensor:
        return (x + 1 - 2 * changes[:, None]).clamp(0, 5)

    def num_calls(self, x: Tensor) -> Tensor:
        return 10 + x[:, 0]

    def look(self, x: Tensor, log_prob: Tensor, rows: Tensor) -> Tensor:
        self.looks.append((x[:, 0].tolist(), log_prob.tolist(), rows.tolist()))
        return seen_from(x[:, 0])


def seen_from(x: Tensor) -> Tensor:
    """Numbers that tell what was seen from each place."""
    return torch.stack([x + 0.25, -x - 0.5], 1).to(torch.float64)


class Walker(InformedKernel):
    """Proposes what it is told, and remembers what it was shown."""

    name = "walker"
    reach = property(lambda self: RandomWalk(GRID, self.target).reach)
    may_stay = property(lambda self: False)
    move: Move
    back: Tensor

    def _draw(self, draws: Draws, position: Tensor, log_changes: Tensor) -> Move:
        self.drawn = draws, position, log_changes
        return self.move

    def _log_back(self, position: Tensor, move: Move, log_changes: Tensor) -> Tensor:
        self.returned = position, move, log_changes
        return self.back


# One row each: accepted, rejected, lazy, stays without being lazy, impossible, at inverse temperature 0, and known.
STOOD, GOES = whole(0, 1, 2, 3, 3, 2, 5), whole(1, 2, 2, 3, 4, 1, 0)
WALK_LAZY = torch.tensor([False, False, True, False, False, False, False])
LOG_FORWARD, LOG_BACK = numbers(-0.5, -0.25, 0.0, -0.75, -1.0, -1.5, -0.3), numbers(-3.5, -1.0, 9, 9, -0.5, -0.1, 3.0)
WALK_TOLD = torch.tensor([True, False, True, True, True, True, True])


def walker(target: Target, is_exact: bool, counted_as: str | None = None) -> Walker:
    kernel = Walker(GRID, target, Around(counted_as))
    change = torch.where(GOES == STOOD, 0.0, HEIGHTS[GOES] - HEIGHTS[STOOD])
    # Where nothing was looked at, nothing is known of the change.
    change[5] = 0.0
    kernel.move = Move(GOES[:, None], LOG_FORWARD, WALK_LAZY, change if is_exact else None)
    kernel.back = LOG_BACK
    return kernel


def view_of(kernel: Walker) -> View:
    """Row 1 was looked at somewhere else, row 4 never, and row 6 here."""
    position = torch.where(torch.arange(7) == 1, 3, STOOD)
    is_seen = torch.tensor([False, True, False, False, False, False, True])
    return View(kernel.surroundings, position[:, None], torch.arange(14.0).double().reshape(7, 2) + 100, is_seen)


@pytest.mark.parametrize("counted_as", [None, "gradient_calls"])
@pytest.mark.parametrize("is_exact", [True, False])
def test_an_informed_step_weighs_what_it_saw_both_ways(is_exact: bool, counted_as: str | None) -> None:
    powers = [1.0, 0.5, 1.0, 1.0, 2.0, 0.0, 0.3]
    counted = CountingTarget(target())
    kernel = walker(counted, is_exact, counted_as)
    kernel.inverse_temperature = numbers(*powers)
    draws = Told(7, {"accept": WALK_TOLD})
    before = State(STOOD[:, None], HEIGHTS[STOOD], view_of(kernel))
    state, info = kernel.step(draws, before)
    # Looked round: the warm rows, once here where nothing was known, and there where they may go.
    around: Any = kernel.surroundings
    here = [row for row in range(7) if row not in (5, 6)]
    there = [0, 1, 6]
    assert around.looks == [
        (STOOD[here].tolist(), HEIGHTS[STOOD[here]].tolist(), here),
        (GOES[there].tolist(), HEIGHTS[GOES[there]].tolist(), there),
    ]
    assert kernel.drawn[0] is draws and kernel.drawn[1] is before.position
    shown_here = seen_from(STOOD)
    shown_here[5], shown_here[6] = 0.0, numbers(112.0, 113.0)
    assert_close(kernel.drawn[2], shown_here, 0.0)
    shown_there = torch.zeros(7, 2, dtype=torch.float64)
    shown_there[there] = seen_from(GOES[there])
    assert kernel.returned[0] is before.position and kernel.returned[1] is kernel.move
    assert_close(kernel.returned[2], shown_there, 0.0)
    # The decision.
    asked, active = draws.asked["accept"]
    assert active.tolist() == [True, True, False, True, True, True, True]
    for row in (0, 1, 3, 4, 5, 6):
        change = tempered_heights(powers[row], int(GOES[row])) - tempered_heights(powers[row], int(STOOD[row]))
        ratio = change + (float(LOG_BACK[row] - LOG_FORWARD[row]) if row != 3 else 0.0)
        assert float(info.log_ratio[row]) == pytest.approx(ratio, abs=1e-14), row
        assert float(asked[row]) == pytest.approx(min(0.0, ratio), abs=1e-14)
    assert info.is_accepted.tolist() == [True, False, False, True, False, True, True]
    assert torch.equal(state.position[:, 0], torch.where(info.is_accepted, GOES, STOOD))
    assert_close(state.log_prob, HEIGHTS[state.position[:, 0]], 0.0)
    assert torch.equal(info.proposal, kernel.move.position)
    for field in (info.num_back_steps, info.num_forward_steps, info.policy_calls):
        assert is_identical(field, torch.zeros(7, dtype=torch.int64))
    # What is kept for the next step: what was seen from where the chain now stands.
    view: Any = state.cache
    assert view.seen_by is kernel.surroundings and view.position is state.position
    assert view.is_seen.tolist() == [True, True, True, True, True, False, True]
    kept = shown_here.clone()
    kept[[0, 6]] = seen_from(GOES[[0, 6]])
    assert_close(view.log_changes[view.is_seen], kept[view.is_seen], 0.0)
    # What it cost: an evaluation where the change was not seen, unless the look there gave it too.
    looked = whole(*(10 + int(STOOD[row]) if row in here else 0 for row in range(7)))
    looked_there = whole(*(10 + int(GOES[row]) if row in there else 0 for row in range(7)))
    evaluated = whole(0, 0, 0, 0, 0, 1, 0) if is_exact else whole(0, 0, 0, 0, 1, 1, 0)
    assert is_identical(info.target_calls, looked + looked_there + evaluated)
    assert torch.equal(torch.as_tensor(info.gradient_calls).expand(7), (looked + looked_there) * bool(counted_as))
    assert counted.num_rows == (1 if is_exact else 5)


@pytest.mark.parametrize("power", [1.0, 0.0])
def test_one_inverse_temperature_serves_all_rows(power: float) -> None:
    kernel = walker(target(), is_exact=False)
    kernel.inverse_temperature = power
    _, info = kernel.step(Told(7, {"accept": WALK_TOLD}), State(STOOD[:, None], HEIGHTS[STOOD]))
    around: Any = kernel.surroundings
    assert [look[2] for look in around.looks] == ([list(range(7)), [0, 1, 5, 6]] if power else [])
    change = 0.0 if power == 0.0 else HEIGHTS[GOES] - HEIGHTS[STOOD]
    leaves = [0, 1, 4, 5, 6]
    assert_close(info.log_ratio[leaves], (change + LOG_BACK - LOG_FORWARD)[leaves], 1e-14)


def test_what_was_seen_before_a_cold_move_says_nothing_after_it() -> None:
    kernel = walker(target(), is_exact=False)
    kernel.inverse_temperature = 0.0
    draws = Told(7, {"accept": WALK_TOLD})
    view = view_of(kernel)._replace(position=STOOD[:, None], is_seen=torch.ones(7, dtype=torch.bool))
    state, info = kernel.step(draws, State(STOOD[:, None], HEIGHTS[STOOD], view))
    assert info.is_accepted.tolist() == [True, False, False, True, True, True, True]
    after: Any = state.cache
    assert after.is_seen.tolist() == [False, True, True, True, False, False, False]


def test_a_view_serves_the_kernel_that_looked_and_the_object_that_it_saw() -> None:
    kernel, other = walker(target(), is_exact=True), walker(target(), is_exact=True)
    state = State(STOOD[:, None], HEIGHTS[STOOD], view_of(kernel))
    known = kernel._known(state)
    assert known.seen_by is kernel.surroundings and known.position is state.position
    assert known.is_seen.tolist() == [False] * 6 + [True]
    assert_close(known.log_changes, torch.tensor([[0.0, 0.0]] * 6 + [[112.0, 113.0]]).double(), 0.0)
    unknown = State(STOOD[:3, None], HEIGHTS[STOOD[:3]], view_of(kernel))
    for asked, stranger in ((other, state), (kernel, state._replace(cache="what others keep")), (kernel, unknown)):
        view = asked._known(stranger)
        assert view.seen_by is asked.surroundings and view.position is stranger.position
        assert is_identical(view.log_changes, torch.zeros(len(stranger.position), 2, dtype=torch.float64))
        assert is_identical(view.is_seen, torch.zeros(len(stranger.position), dtype=torch.bool))


def test_an_informed_proposal_is_handed_to_other_frameworks_as_it_is() -> None:
    kernel = walker(target(), is_exact=True)
    draws = Told(7, {})
    position, log_hastings = kernel.propose(STOOD[:, None], draws)
    assert position is kernel.move.position and kernel.drawn[0] is draws and not draws.asked
    assert_close(log_hastings, torch.where(GOES == STOOD, 0.0, LOG_BACK - LOG_FORWARD), 0.0)
    around: Any = kernel.surroundings
    assert around.looks[0][1] == HEIGHTS[STOOD].tolist()


def test_changes_are_tempered_where_they_are() -> None:
    kernel = walker(target(), is_exact=True)
    changes = torch.tensor([[1.0, -INF], [-2.0, 0.5]], dtype=torch.float64)
    for power, wanted in (
        (0.3, [[0.3, -INF], [-0.6, 0.15]]),
        (0.0, [[0.0, 0.0], [0.0, 0.0]]),
        (numbers(0.0, 2.0), [[0.0, 0.0], [-4.0, 1.0]]),
        (numbers(1.0, 0.0), [[1.0, -INF], [0.0, 0.0]]),
    ):
        kernel.inverse_temperature = power
        found = kernel._tempered(changes)
        is_finite = found.isfinite()
        by_hand = torch.tensor(wanted, dtype=torch.float64)
        assert torch.equal(is_finite, by_hand.isfinite())
        assert_close(found[is_finite], by_hand[is_finite], 1e-15)
    kernel.inverse_temperature = 0.3
    assert kernel._power(changes.to("meta")).device.type == "meta"
    unseen = kernel._unseen(torch.zeros(3, 1, device="meta"))
    assert unseen.log_changes.device.type == unseen.is_seen.device.type == "meta"
    kernel.surroundings.num_changes = 1
    assert kernel._unseen(STOOD[:, None]).is_seen.shape == (7,)


def test_a_change_is_drawn_by_its_weight_among_those_that_apply() -> None:
    # One row each: both changes apply, one does, and none that is to be made.
    places, log_weights = whole(2, 5, 0), torch.tensor([[1.0, 3.0], [9.0, 2.0], [0.0, 7.0]]).double().log()
    draws = Told(3, {"change": whole(1, 1, 1)})
    move = draw_change(draws, Around(None), places[:, None], log_weights)
    law, active = draws.asked["change"]
    assert_close(law[:2].exp(), torch.tensor([[0.25, 0.75], [0.0, 1.0]]).double(), 1e-15)
    assert active.tolist() == [True, True, False] and move.is_lazy.tolist() == [False, False, True]
    assert move.position[:, 0].tolist() == [1, 4, 0]
    assert_close(move.log_forward, numbers(math.log(0.75), 0.0, 0.0), 1e-15)
    assert move.changes is not None and move.changes.tolist() == [1, 1, 0] and move.log_change is None
    assert chosen(log_weights, whole(0, 1, 1)).exp().tolist() == pytest.approx([1.0, 2.0, 7.0], abs=1e-14)
