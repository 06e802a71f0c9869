"""Hold the single changes of an environment to their contract.

`check_environment` walks at random and `enumerate_states` checks every edge; both know building only. A random walk is
exact where each object that a change leads to has exactly one change that leads back, and where it connects the space.
"""

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import EnvironmentContractError
from gfnmc.core.lookup import RowIndex
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.policies.uniform import uniformly_built


def check_changes(environment: DiscreteEnvironment, objects: Shaped[Tensor, "objects *event"] | None = None) -> None:
    """Hold the single changes of an environment to their contract.

    Each change leads to another object of the environment; no two lead from an object to the same one; and exactly one
    leads back. Where `objects` are all objects, `changes_connect` is checked too.

    Args:
        environment: Offers single changes.
        objects: Objects to change; some that are built at random by default.

    Raises:
        EnvironmentContractError: At the first object whose changes are wrong.
        CapabilityError: If the environment has no single changes.
    """
    objects = built_objects(environment) if objects is None else objects
    name = type(environment).__name__
    expected = (len(objects), environment.num_changes)
    mask = environment.change_mask(objects)
    _require(
        mask.dtype == torch.bool and tuple(mask.shape) == expected,
        f"{name}.change_mask returned {mask.dtype} of shape {tuple(mask.shape)}; return torch.bool of shape {expected}",
    )
    rows, changes = mask.nonzero(as_tuple=True)
    given = objects[rows]
    after = environment.change(given, changes)
    _require(torch.equal(given, objects[rows]), f"{name}: change changes the objects it is given; return new ones")
    _require(
        after.dtype == objects.dtype and after.shape == given.shape,
        f"{name}.change returned {after.dtype} of shape {tuple(after.shape)} for objects that are {given.dtype} of "
        f"shape {tuple(given.shape)}",
    )
    _check_are_objects(environment, objects[rows], changes, after)
    for row in range(len(objects)):
        _check_changes_of(environment, objects[row], changes[rows == row], after[rows == row])


def check_connected(environment: DiscreteEnvironment, objects: Shaped[Tensor, "objects *event"]) -> None:
    """Check, with all objects of an environment, that single changes lead from any to any other.

    Raises:
        EnvironmentContractError: If `changes_connect` is promised and not kept.
        CapabilityError: If the environment has no single changes.
    """
    if not environment.changes_connect:
        return
    changed, mask = environment.neighbours(objects)
    rows, changes = mask.nonzero(as_tuple=True)
    place = RowIndex(objects).find(changed[rows, changes])
    reached = torch.zeros(len(objects), dtype=torch.bool)
    reached[0] = True
    while True:
        wider = reached.clone()
        wider[place[reached[rows]]] = True
        if torch.equal(wider, reached):
            break
        reached = wider
    if not reached.all():
        raise EnvironmentContractError(
            f"{type(environment).__name__} says changes_connect, but no changes lead from {objects[0].tolist()} to "
            f"{objects[~reached][0].tolist()}; set changes_connect = False"
        )


def built_objects(
    environment: DiscreteEnvironment, num_objects: int = 64, seed: int = 0
) -> Shaped[Tensor, "objects *event"]:
    """Return different objects that random allowed actions build."""
    return uniformly_built(environment, PhiloxDraws(seed, "built_objects", num_objects)).unique(dim=0)


def _check_are_objects(environment: DiscreteEnvironment, before: Tensor, changes: Tensor, after: Tensor) -> None:
    """Check that changed objects are objects: finished, and the same after a round through their states."""
    name = type(environment).__name__
    states = environment.states(after)
    again = environment.objects(states)
    for holds, complaint in (
        (_same(again, after), "objects(states(object)) is another object"),
        (environment.is_terminal(states), "which is not finished"),
        (~_same(before, after), "which is where it was"),
    ):
        if not holds.all():
            row = int((~holds).nonzero()[0, 0])
            raise EnvironmentContractError(
                f"{name}: change {int(changes[row])} leads from {before[row].tolist()} to {after[row].tolist()}: "
                f"{complaint}; let change_mask forbid it"
            )


def _check_changes_of(environment: DiscreteEnvironment, x: Tensor, changes: Tensor, after: Tensor) -> None:
    """Check that an object's changes lead to different objects, and that one change of each leads back."""
    name = type(environment).__name__
    if len(after) == 0:
        return
    different, which, count = after.unique(dim=0, return_inverse=True, return_counts=True)
    if len(different) < len(after):
        twice = changes[count[which] > 1][:2].tolist()
        raise EnvironmentContractError(
            f"{name}: changes {twice[0]} and {twice[1]} of {x.tolist()} lead to the same object; a random walk would "
            "draw it twice as often, so let change_mask forbid one of them"
        )
    again, mask = environment.neighbours(after)
    back = (again.flatten(2) == x.flatten()).all(-1) & mask
    number = back.sum(-1)
    if (number != 1).any():
        row = int((number != 1).nonzero()[0, 0])
        raise EnvironmentContractError(
            f"{name}: change {int(changes[row])} leads from {x.tolist()} to {after[row].tolist()}, but "
            f"{int(number[row])} changes lead back; it must be 1, or a chain drifts one way"
        )


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise EnvironmentContractError(message)


def _same(one: Tensor, other: Tensor) -> Bool[Tensor, " rows"]:
    if one.shape != other.shape:
        return torch.zeros(len(other), dtype=torch.bool)
    return (one == other).flatten(1).all(-1)
