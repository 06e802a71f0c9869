"""Walks of environments whose positions are drawn ahead, made at once instead of step by step.

First the order of the positions is drawn, or known; then the policy chooses a value at each. Nothing is done to a state
until the last value is there. What comes out is, to the bit, what the walks of `rollout` make step by step.
"""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import PolicyError
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.environments.filling import Filling
from gfnmc.policies.mlp_fill_gradient import MLPLearner
from gfnmc.policies.mlp_filler import MLPFiller, Walked
from gfnmc.policies.path import Ends, Path


def fill(
    filler: MLPFiller,
    environment: DiscreteEnvironment,
    states: Tensor,
    cache: Float[Tensor, "batch hidden"],
    draws: Draws,
) -> Path:
    """Build finished objects from `states` by P_F; the result has `log_forward` and `end_cache`."""
    filling = _filling_of(environment)
    lengths = filling.num_open(states)
    rows = _Rows(lengths)
    length = len(rows.num_active)
    every = filling.num_decisions + 1
    decisions = draws.ahead(every * length, rows.order)
    ordered = rows.ordered(states)
    positions, log_position = filling.ahead(ordered, rows.lengths, decisions, every)
    places = range(filling.num_decisions, every * length, every)
    filled = filler.walk(rows.ordered(cache), positions, rows.num_active, decisions, places)
    log_forward = rows.back(rows.total(log_position + filled.log_probs))
    _check_finite(log_forward)
    end = _written(ordered, positions, filled.actions - positions * filler.num_values, rows.lengths)
    actions = rows.without_padding(filled.actions)
    return Path(
        Ends(states, rows.back(end), environment),
        rows.back(actions.T),
        lengths,
        lengths == filling.num_positions,
        log_forward=log_forward,
        end_cache=rows.back(filled.cache),
        walked_with=rows.walked_back(filled.walked),
    )


def empty(
    environment: DiscreteEnvironment,
    states: Tensor,
    num_steps: Int64[Tensor, " batch"] | None,
    draws: Draws,
) -> Path:
    """Take finished states apart by the P_B that fits the order; the result has `log_backward`.

    Args:
        environment: Where to walk.
        states: Finished states.
        num_steps: Actions to undo, a row; None for all.
        draws: Random decisions.
    """
    filling = _filling_of(environment)
    num_values = environment.num_actions // filling.num_positions
    if num_steps is None:
        num_steps = torch.full((len(states),), filling.num_positions, device=states.device)
    lengths = num_steps.clamp(0, filling.num_positions)
    length = int(lengths.max()) if len(lengths) else 0
    positions, log_position = filling.undone_ahead(lengths, draws.ahead(filling.num_decisions * length))
    values = states.gather(1, positions.T).T.to(torch.int64)
    start = _written(states, positions, torch.full_like(values, filling.blank), lengths)
    place = (lengths - 1 - torch.arange(length, device=lengths.device)[:, None]).clamp(min=0)
    actions = (positions * num_values + values).gather(0, place)
    is_action = torch.arange(length, device=lengths.device)[:, None] < lengths
    return Path(
        Ends(start, states, environment),
        torch.where(is_action, actions, 0).T,
        lengths,
        lengths == filling.num_positions,
        log_backward=_last(log_position.cumsum(0), lengths),
    )


def score_fill(
    filler: MLPFiller | MLPLearner, environment: DiscreteEnvironment, path: Path, cache: Float[Tensor, "batch hidden"]
) -> Float64[Tensor, "batch length"]:
    """Return log P_F of each action of paths, nats; 0 in the padding."""
    rows = _Rows(path.lengths)
    actions = rows.ordered(path.actions).T.contiguous()
    values = filler.score(rows.ordered(cache), actions, rows.num_active, rows.walked_ordered(path.walked_with))
    place = torch.arange(len(values), device=values.device)[:, None]
    num_open = rows.lengths - place
    log_position = _filling_of(environment).log_choice(num_open)
    return rows.back(rows.without_padding(log_position + values).T)


def score_empty(environment: DiscreteEnvironment, path: Path) -> Float64[Tensor, "batch length"]:
    """Return log P_B of undoing each action of paths to finished states, nats; 0 in the padding."""
    filling = _filling_of(environment)
    place = torch.arange(path.actions.shape[1], device=path.lengths.device)
    num_filled = filling.num_positions - path.lengths[:, None] + place + 1
    return torch.where(path.is_action, filling.log_choice(num_filled), 0.0)


class _Rows:
    """The rows of a batch, longer walks before shorter ones, so that those that still walk are the first ones.

    Args:
        lengths: Actions of each walk.
    """

    def __init__(self, lengths: Int64[Tensor, " batch"]) -> None:
        self.order: Tensor | None = None
        self.lengths = lengths
        counts = torch.bincount(lengths).tolist() if len(lengths) else []
        if sum(count > 0 for count in counts) > 1:
            self.order = lengths.argsort(descending=True, stable=True)
            self.lengths = lengths[self.order]
            self._inverse = self.order.argsort()
        # How many walks are longer than 0, 1, 2, ... actions.
        self.num_active = [sum(counts[done + 1 :]) for done in range(len(counts) - 1)]

    def ordered(self, values: Tensor) -> Tensor:
        return values if self.order is None else values.index_select(0, self.order)

    def back(self, values: Tensor) -> Tensor:
        return values if self.order is None else values.index_select(0, self._inverse)

    def walked_ordered(self, walked: Walked | None) -> Walked | None:
        if walked is None or self.order is None:
            return walked
        return walked._replace(differences=walked.differences.index_select(2, self.order))

    def walked_back(self, walked: Walked) -> Walked:
        if self.order is None:
            return walked
        return walked._replace(differences=walked.differences.index_select(2, self._inverse))

    def without_padding(self, values: Tensor) -> Tensor:
        """Return steps of the ordered rows with 0 after the end of each."""
        if self.order is None:
            return values
        place = torch.arange(len(values), device=values.device)[:, None]
        return torch.where(place < self.lengths, values, 0)

    def total(self, log_probs: Float64[Tensor, "length batch"]) -> Float64[Tensor, " batch"]:
        """Return the sums over the steps of the ordered rows, added one after the other as a walk adds them."""
        return _last(log_probs.cumsum(0), self.lengths)


def _check_finite(log_forward: Float64[Tensor, " batch"]) -> None:
    """Refuse walks whose choices came of weights that are not finite.

    Raises:
        PolicyError: If a log-probability is NaN.
    """
    if bool(log_forward.isnan().any()):
        row = int(log_forward.isnan().nonzero()[0, 0])
        raise PolicyError(f"row {row} has nothing to choose from: a log-probability is nan, so weights are not finite")


def _filling_of(environment: DiscreteEnvironment) -> Filling:
    assert environment.filling is not None
    return environment.filling


def _last(sums: Float64[Tensor, "length batch"], lengths: Int64[Tensor, " batch"]) -> Float64[Tensor, " batch"]:
    if not len(sums):
        return torch.zeros(len(lengths), dtype=torch.float64, device=lengths.device)
    sums = sums.gather(0, (lengths - 1).clamp(min=0)[None])[0]
    return torch.where(lengths > 0, sums, 0.0)


def _written(
    states: Tensor,
    positions: Int64[Tensor, "length batch"],
    values: Int64[Tensor, "length batch"],
    lengths: Int64[Tensor, " batch"],
) -> Tensor:
    """Return the states with the values at the positions of each row's walk."""
    if not len(positions):
        return states
    if bool((lengths == len(positions)).all()):
        return states.scatter(1, positions.T, values.T.to(states.dtype))
    # The padding writes a row's first value once more; a row without any, the value that is there.
    place = torch.arange(len(positions), device=lengths.device)[:, None]
    positions = torch.where(place < lengths, positions, positions[:1])
    first = torch.where(lengths > 0, values[0], states.gather(1, positions[:1].T)[:, 0].to(values.dtype))
    values = torch.where(place < lengths, values, first)
    return states.scatter(1, positions.T, values.T.to(states.dtype))
