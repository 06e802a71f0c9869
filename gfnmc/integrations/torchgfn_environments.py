"""torchgfn's environments, batch of tensors in and batch of tensors out, and what is known of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from gfnmc.core.errors import CapabilityError, OptionError


class Facts(NamedTuple):
    """What an environment does not say of itself.

    Attributes:
        max_depth: Most actions of a path, the exit not counted; None where not known.
        is_fixed_length: Whether every complete path has as many.
        depth: Number of actions from the source; None where not known.
        values: The values of a site, where objects are all assignments of them to sites; else None.
    """

    max_depth: int | None = None
    is_fixed_length: bool = False
    depth: Callable[[Tensor], Tensor] | None = None
    values: tuple[int, ...] | None = None


def facts_of(env: Any) -> Facts:
    """Return what is known of one of torchgfn's own environments, or of a class made from it."""
    for base in type(env).__mro__:
        if base.__module__.partition(".")[0] == "gfn" and base.__name__ in _FACTS:
            return _FACTS[base.__name__](env)
    return Facts()


class Space:
    """The moves and masks of an environment on plain tensors.

    Args:
        env: The environment.
        condition: What it is bound to, `(condition_dim,)`.
        max_depth: Most actions of a path; what is known of it by default.
        is_fixed_length: Whether every complete path has as many; what is known of it by default.

    Attributes:
        num_actions: Actions, the exit not counted; the exit is the next one.
        max_depth: As given, or known.
        is_fixed_length: As given, or known.
        depth: Number of actions from the source, where known.

    Raises:
        CapabilityError: If states are not tensors, or actions not numbers.
        OptionError: If `max_depth` is not known, or a condition is missing or not wanted.
    """

    def __init__(self, env: Any, condition: Tensor | None, max_depth: int | None, is_fixed_length: bool | None) -> None:
        _check_environment(env, condition)
        facts = facts_of(env)
        self.env = env
        self.condition = None if condition is None else condition.to(torch.get_default_dtype())
        self.num_actions = int(env.n_actions) - 1
        self.is_fixed_length = facts.is_fixed_length if is_fixed_length is None else is_fixed_length
        self.depth = facts.depth
        found = facts.max_depth if max_depth is None else max_depth
        if found is None:
            raise OptionError(
                f"the longest path of {type(env).__name__} is not known; give max_depth, the most actions of a path "
                "without the exit, a bound will do"
            )
        self.max_depth = found

    def states(self, states: Shaped[Tensor, "batch *state"]) -> Any:
        """Return states as the environment wants them."""
        if self.condition is None:
            return self.env.states_from_tensor(states)
        return self.env.states_from_tensor(states, conditions=self.condition.expand(len(states), -1))

    def step(self, states: Shaped[Tensor, "batch *state"], actions: Int64[Tensor, " batch"]) -> Tensor:
        """Return the states after the actions."""
        return self._moved(self.env._step, states, actions)

    def unstep(self, states: Shaped[Tensor, "batch *state"], actions: Int64[Tensor, " batch"]) -> Tensor:
        """Return the states before them."""
        made = self.env.states_from_tensor(states)
        if not hasattr(made, "length"):
            return self._moved(self.env._backward_step, states, actions)
        # 2.4.1 undoes in every row of a batch of sequences what it undoes in one, so rows of one length go together.
        before = states.clone()
        for length in made.length.unique():
            rows = (made.length == length).nonzero()[:, 0]
            before[rows] = self._moved(self.env._backward_step, states[rows], actions[rows])
        return before

    def is_source(self, states: Shaped[Tensor, "batch *state"]) -> Bool[Tensor, " batch"]:
        """Return True where a state is the empty one."""
        return (states == self.env.s0).flatten(1).all(-1)

    def is_finished(self, states: Shaped[Tensor, "batch *state"]) -> Bool[Tensor, " batch"]:
        """Return True where nothing but the exit is left."""
        return ~self.states(states).forward_masks[:, : self.num_actions].any(-1)

    def forward_masks(self, made: Any) -> Bool[Tensor, "batch actions"]:
        """Return the actions that may be taken, the exit among them where lengths differ."""
        return made.forward_masks[:, : self.num_actions] if self.is_fixed_length else made.forward_masks

    def _moved(self, move: Callable[[Any, Any], Any], states: Tensor, actions: Tensor) -> Tensor:
        # Without the condition, which moves do not look at, and of whose loss on the way they would warn each time.
        made = self.env.states_from_tensor(states)
        return move(made, self.env.actions_from_tensor(actions[:, None])).tensor


def _check_environment(env: Any, condition: Tensor | None) -> None:
    name = type(env).__name__
    if not isinstance(getattr(env, "s0", None), Tensor):
        raise CapabilityError(
            f"the states of {name} are not tensors but graphs, or it is no environment of torchgfn; kernels need "
            "tensors, so write the graphs as rows of a tensor (gfnmc.environments.GraphBuilding, DAGs) or as an "
            "environment of your own (docs/how-to/custom-environment.md)"
        )
    if not getattr(env, "is_discrete", False) or not hasattr(env, "n_actions"):
        raise CapabilityError(f"{name} has no numbered actions; only discrete environments can be adapted")
    wants = bool(getattr(env, "is_conditional", False))
    if wants and condition is None:
        raise OptionError(f"{name} is conditional; give the condition to sample under, (condition_dim,) floats")
    if not wants and condition is not None:
        raise OptionError(f"{name} is not conditional; leave the condition out")
    if condition is not None and condition.dim() != 1:
        raise OptionError(f"the condition has shape {tuple(condition.shape)}; give one for all rows, (condition_dim,)")


def _number_of_filled(states: Tensor) -> Int64[Tensor, " batch"]:
    return (states != -1).sum(-1)


def _total(states: Tensor) -> Int64[Tensor, " batch"]:
    return states.sum(-1).to(torch.int64)


def _level(states: Tensor) -> Int64[Tensor, " batch"]:
    return (states[:, 0] + 1).to(torch.float64).log2().floor().to(torch.int64)


def _words(env: Any) -> Facts:
    return Facts(env.words_per_seq, True, _number_of_filled, tuple(range(2**env.word_size)))


def _sets(env: Any) -> Facts:
    is_every_set = not env.fixed_length and env.max_traj_len >= env.n_items
    return Facts(min(env.max_traj_len, env.n_items), env.fixed_length, _total, (0, 1) if is_every_set else None)


_FACTS: dict[str, Callable[[Any], Facts]] = {
    "BitSequence": _words,
    "DiscreteEBM": lambda env: Facts(env.ndim, True, _number_of_filled, (0, 1)),
    "HyperGrid": lambda env: Facts(env.ndim * (env.height - 1), False, _total, tuple(range(env.height))),
    "NonAutoregressiveBitSequence": _words,
    "PerfectBinaryTree": lambda env: Facts(env.depth, True, _level),
    "SetAddition": _sets,
}
"""By the name of the class in torchgfn 2.4; BitSequencePlus and ConditionalHyperGrid are made from two of them."""
