"""The record of a walk between a state and a finished object."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.numerics import where_rows
from gfnmc.environments.base import DiscreteEnvironment


class Ends(NamedTuple):
    """The first and the last states of walks whose other states nobody has asked for yet.

    Attributes:
        start: Where the walks start.
        end: Where they end.
        environment: What was walked.
    """

    start: Shaped[Tensor, "batch *state"]
    end: Shaped[Tensor, "batch *state"]
    environment: DiscreteEnvironment


@dataclass(frozen=True, eq=False)
class Path:
    """A batch of paths, each from a start state up to a finished state, padded to one length.

    Everything is in forward order, whichever way the path was walked. The exit is not among the actions; its
    log-probability is part of `log_forward`.

    Attributes:
        walked: The states along the path; or its ends, where the states between follow from the actions when needed.
        actions: Forward actions between them; 0 after a row's end.
        lengths: Actions of each row.
        reached_source: Whether the path starts at the source.
        log_forward: log P_F of building the object from the start, exit included, nats; None until scored.
        log_backward: log P_B of taking the object apart down to the start, nats; None until scored.
        start_cache: What the forward policy knows at the start, where a pair hands it on; None elsewhere.
        end_cache: The same at the end.
        walked_with: What the policy that walked computed on the way, for scores by the same weights; None elsewhere.
    """

    walked: Shaped[Tensor, "batch length_plus_1 *state"] | Ends
    actions: Int64[Tensor, "batch length"]
    lengths: Int64[Tensor, " batch"]
    reached_source: Bool[Tensor, " batch"]
    log_forward: Float64[Tensor, " batch"] | None = None
    log_backward: Float64[Tensor, " batch"] | None = None
    start_cache: Any = None
    end_cache: Any = None
    walked_with: Any = None

    @cached_property
    def states(self) -> Shaped[Tensor, "batch length_plus_1 *state"]:
        """The states along the paths; after a row's end its last state repeats."""
        return self.walked if isinstance(self.walked, Tensor) else self._walked_again(self.walked)

    @property
    def start(self) -> Shaped[Tensor, "batch *state"]:
        """The states where the paths begin."""
        return self.walked[:, 0] if isinstance(self.walked, Tensor) else self.walked.start

    @property
    def end(self) -> Shaped[Tensor, "batch *state"]:
        """The finished states where the paths end."""
        return self.walked[:, -1] if isinstance(self.walked, Tensor) else self.walked.end

    @property
    def is_action(self) -> Bool[Tensor, "batch length"]:
        """Which actions are not padding."""
        return torch.arange(self.actions.shape[1], device=self.lengths.device) < self.lengths[:, None]

    def after(self, depth: Int64[Tensor, " batch"]) -> "Path":
        """Return the paths without their first `depth` actions (none are left where a path is shorter)."""
        depth = torch.minimum(depth, self.lengths)
        length = int((self.lengths - depth).max()) if len(depth) else 0
        place = depth[:, None] + torch.arange(length + 1, device=depth.device)
        states = _take(self.states, place.clamp(max=self.states.shape[1] - 1))
        actions = _take(self.actions, place[:, :-1].clamp(max=max(self.actions.shape[1] - 1, 0)))
        shortened = replace(self, walked=states, actions=actions, lengths=self.lengths - depth)
        return replace(
            shortened,
            actions=torch.where(shortened.is_action, actions, 0),
            reached_source=self.reached_source & (depth == 0),
            log_forward=None,
            log_backward=None,
            start_cache=None,
            end_cache=None,
            walked_with=None,
        )

    def _walked_again(self, ends: Ends) -> Shaped[Tensor, "batch length_plus_1 *state"]:
        states = ends.start
        walked = [states]
        for is_action, actions in zip(self.is_action.unbind(1), self.actions.unbind(1), strict=True):
            states = where_rows(is_action, ends.environment.step(states, actions), states)
            walked.append(states)
        return torch.stack(walked, 1)


def joined(first: Path, second: Path) -> Path:
    """Return two batches of paths as one, padded to the longer, unscored."""
    length = max(first.actions.shape[1], second.actions.shape[1])
    actions = [torch.nn.functional.pad(path.actions, (0, length - path.actions.shape[1])) for path in (first, second)]
    return Path(
        _joined_walks(first, second, length),
        torch.cat(actions),
        torch.cat([first.lengths, second.lengths]),
        torch.cat([first.reached_source, second.reached_source]),
    )


def reversed_path(
    visited: Shaped[Tensor, "batch length_plus_1 *state"],
    undone: Int64[Tensor, "batch length"],
    lengths: Int64[Tensor, " batch"],
    reached_source: Bool[Tensor, " batch"],
    log_backward: Float64[Tensor, " batch"],
) -> Path:
    """Return a walk that was recorded from the object down, in forward order."""
    place = torch.arange(visited.shape[1], device=lengths.device)
    states = _take(visited, (lengths[:, None] - place).clamp(min=0))
    actions = _take(undone, (lengths[:, None] - 1 - place[:-1]).clamp(min=0))
    path = Path(states, actions, lengths, reached_source, log_backward=log_backward)
    return replace(path, actions=torch.where(path.is_action, actions, 0))


def _joined_walks(first: Path, second: Path, length: int) -> Tensor | Ends:
    if isinstance(first.walked, Ends) and isinstance(second.walked, Ends):
        starts, ends = torch.cat([first.start, second.start]), torch.cat([first.end, second.end])
        return Ends(starts, ends, first.walked.environment)
    place = torch.arange(length + 1, device=first.lengths.device)
    return torch.cat([path.states[:, place.clamp(max=path.actions.shape[1])] for path in (first, second)])


def _take(rows: Tensor, place: Int64[Tensor, "batch n"]) -> Tensor:
    """Return `rows[i, place[i, j]]`."""
    return rows[torch.arange(rows.shape[0], device=place.device)[:, None], place]
