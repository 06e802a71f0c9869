"""Symmetries of a target, built into a policy.

A policy is equivariant under a group if relabelling a state and its actions changes nothing:
pi(g a | g s) = pi(a | s). Two ways to make any policy so:

    averaged:   log pi(a|s) = mean over g of log q(g a | g s), normalised
    canonical:  the same mean over those g that carry s to the first of its relabelled states

The result is one more policy, so a kernel that proposes by it is as exact as by any other, also where the target does
not have the symmetry.

Reference: averages over the group, Murphy et al. 2019 (1811.01900); canonical states, Kaba et al. 2023 (2211.06489).
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.errors import OptionError
from gfnmc.core.symmetry import Symmetry
from gfnmc.policies.base import Cache, DiscretePolicy

_LARGEST_GROUP = 4096

SymmetrisedType = TypeVar("SymmetrisedType", bound="SymmetrisedPolicy")


class SymmetrisedPolicy(DiscretePolicy):
    """A policy made equivariant under a group.

    Args:
        policy: Any policy of an environment that offers `transformed` and `transformed_actions`.
        symmetries: Elements of the group, as a target lists them; products of theirs are added.

    Raises:
        OptionError: If there is no symmetry, or the group is too large to go through.
        CapabilityError: If the environment does not relabel states, or not by these symmetries.
    """

    action_maps: Int64[Tensor, "group actions"]

    def __init__(self, policy: DiscretePolicy, symmetries: Sequence[Symmetry]) -> None:
        super().__init__(policy.environment, policy.direction, num_conditions=policy.num_conditions)
        self.policy = policy
        self.symmetries = tuple(symmetries)
        self.group = generated_group(symmetries)
        maps = torch.stack([self.environment.transformed_actions(element) for element in self.group])
        self.register_buffer("action_maps", maps, persistent=False)

    def given(self: SymmetrisedType, condition: Float[Tensor, "*batch conditions"]) -> SymmetrisedType:
        bound = super().given(condition)
        # A shallow copy shares this dict, and the view's policy is its own.
        bound._modules = dict(self._modules)
        bound.policy = self._given_policy(condition)
        return bound

    def frozen(self: SymmetrisedType) -> SymmetrisedType:
        frozen = super().frozen()
        frozen.policy = self.policy.frozen()
        return frozen

    def options(self) -> dict[str, Any]:
        return {"policy": self.policy, "symmetries": self.symmetries}

    @property
    def is_positive(self) -> bool:
        return self.policy.is_positive or self.epsilon > 0.0

    @abstractmethod
    def _given_policy(self, condition: Tensor) -> DiscretePolicy:
        """Return the inner policy under a condition, in the order of rows that it meets."""

    def _frames(self, states: Shaped[Tensor, "batch *state"]) -> Shaped[Tensor, "group batch *state"]:
        """Return the states relabelled by every element of the group."""
        return torch.stack([self.environment.transformed(element, states) for element in self.group])

    def _law(self, mean_logits: Float64[Tensor, "batch actions"], states: Tensor) -> Float64[Tensor, "batch actions"]:
        # Means of what is forbidden are -inf, whose gradients would not be numbers.
        allowed = self.environment.mask(states, self.direction)
        return self._normalised(mean_logits.masked_fill(~allowed, 0.0), states)


class AveragedPolicy(SymmetrisedPolicy):
    """The average over all relabelled states: as many evaluations as the group has elements, each updated step by step.

    Args:
        policy: As in `SymmetrisedPolicy`.
        symmetries: As in `SymmetrisedPolicy`.
    """

    # The inner policy's rows are those of the first element of the group, then those of the second, and so on.

    def begin(self, states: Tensor) -> Cache:
        return self.policy.begin(self._frames(states).flatten(0, 1))

    def advance(self, cache: Cache, states: Tensor, actions: Int64[Tensor, " batch"]) -> Cache:
        return self.policy.advance(cache, self._frames(states).flatten(0, 1), self.action_maps[:, actions].flatten())

    def along(
        self, states: Tensor, actions: Int64[Tensor, "batch length"], select: Bool[Tensor, "batch length_plus_1"]
    ) -> Cache:
        frames = self._frames(states.flatten(0, 1)).unflatten(1, states.shape[:2]).flatten(0, 1)
        relabelled = self.action_maps[:, actions].flatten(0, 1)
        return self.policy.along(frames, relabelled, select.repeat(len(self.group), 1))

    def log_probs(self, cache: Cache, states: Tensor) -> Float64[Tensor, "batch actions"]:
        law = self.policy.log_probs(cache, self._frames(states).flatten(0, 1)).unflatten(0, (len(self.group), -1))
        total = sum(one[:, relabelled] for one, relabelled in zip(law, self.action_maps, strict=True))
        assert isinstance(total, Tensor)
        return self._law(total / len(self.group), states)

    def _given_policy(self, condition: Tensor) -> DiscretePolicy:
        return self.policy.given(condition if condition.dim() == 1 else condition.repeat(len(self.group), 1))


class CanonicalPolicy(SymmetrisedPolicy):
    """The policy at the first, in lexicographic order, of the relabelled states: one evaluation, recomputed every step.

    Several elements of the group may lead there, where the state has symmetries itself; their average is taken, without
    which the law would depend on which of them is found first.

    Args:
        policy: As in `SymmetrisedPolicy`.
        symmetries: As in `SymmetrisedPolicy`.
    """

    def begin(self, states: Tensor) -> Float[Tensor, "batch conditions"] | None:
        return self._condition_of_rows(states.shape[0])

    def advance(
        self, cache: Tensor | None, states: Tensor, actions: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch conditions"] | None:
        return cache

    def log_probs(self, cache: Tensor | None, states: Tensor) -> Float64[Tensor, "batch actions"]:
        frames = self._frames(states)
        is_first = _is_first(frames)
        which = is_first.to(torch.int8).argmax(0)
        canonical = frames[which, torch.arange(states.shape[0], device=states.device)]
        policy = self.policy if cache is None else self.policy.given(cache)
        law = policy.log_probs(policy.begin(canonical), canonical)
        total = torch.zeros_like(law)
        for leads, relabelled in zip(is_first, self.action_maps, strict=True):
            total = total + torch.where(leads[:, None], law[:, relabelled], 0.0)
        return self._law(total / is_first.sum(0)[:, None], states)

    def _given_policy(self, condition: Tensor) -> DiscretePolicy:
        return self.policy.given(condition)


def generated_group(symmetries: Sequence[Symmetry]) -> tuple[Symmetry, ...]:
    """Return all products of symmetries, the identity first.

    Raises:
        OptionError: If there is no symmetry, or there are too many products.
    """
    if not symmetries:
        raise OptionError("there is no symmetry to build in; give those of the target, or use the policy as it is")
    first = symmetries[0]
    identity = Symmetry("identity", tuple(range(len(first.sites))), tuple(range(len(first.values))))
    group, generators = {identity: None}, []
    for symmetry in symmetries:
        if symmetry in group:
            continue
        generators.append(symmetry)
        frontier = list(group)
        while frontier:
            new = {generator.after(element): None for element in frontier for generator in generators}
            frontier = [element for element in new if element not in group]
            group.update(dict.fromkeys(frontier))
            if len(group) > _LARGEST_GROUP:
                raise OptionError(f"these symmetries make a group of more than {_LARGEST_GROUP} elements; give fewer")
    return tuple(group)


def _is_first(frames: Shaped[Tensor, "group batch *state"]) -> Bool[Tensor, "group batch"]:
    """Return which of the group's frames of each state are the first in lexicographic order."""
    flat = frames.flatten(2)
    is_first = torch.ones(flat.shape[:2], dtype=torch.bool, device=flat.device)
    if flat.numel() == 0:
        return is_first
    low, radix = int(flat.min()), max(int(flat.max()) - int(flat.min()) + 1, 2)
    # As many coordinates at a time as fit an integer of 62 bits.
    for digits in flat.split(max(1, int(62 / math.log2(radix))), -1):
        place = radix ** torch.arange(digits.shape[-1] - 1, -1, -1, device=flat.device)
        code = ((digits.to(torch.int64) - low) * place).sum(-1)
        code = torch.where(is_first, code, torch.iinfo(torch.int64).max)
        is_first = is_first & (code == code.amin(0))
    return is_first
