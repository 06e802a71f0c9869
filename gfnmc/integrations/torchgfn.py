"""Pairs that torchgfn trained (GFNOrg/torchgfn 2.4, import name `gfn`), as proposals here.

    pair = from_torchgfn(gflownet, env)
    target = torchgfn_target(env)
    chains = gfnmc.sample(SuffixResampling(pair, target))

Nothing of torchgfn is imported: the objects that are handed in are asked. What they call an exit is one here, unless
all objects have the same length; then an object is finished where nothing but the exit is left.

P_F and P_B are what the estimators say of a state without exploration, whichever loss they were trained with. Where a
model has no P_B it is uniform; a flow-matching model implies one,

    P_B(s | s') = F(s -> s') / sum over the parents s'' of s' of F(s'' -> s')
"""

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.errors import CapabilityError, EnvironmentContractError, GfnmcError, OptionError, PolicyError
from gfnmc.integrations.functions import FunctionPair
from gfnmc.integrations.torchgfn_environments import Space, facts_of
from gfnmc.policies.sub_batches import SUB_BATCH, in_sub_batches
from gfnmc.targets.base import Target
from gfnmc.targets.function import BatchFunction, from_function

Backward = Literal["own", "uniform", "flow"]


def from_torchgfn(
    gflownet: Any,
    env: Any,
    *,
    condition: Tensor | None = None,
    backward: Backward | None = None,
    max_depth: int | None = None,
    is_fixed_length: bool | None = None,
    training_cost: Cost | None = None,
    block_rows: int | None = SUB_BATCH,
) -> FunctionPair:
    """Return the pair of a torchgfn model.

    The estimators are copied, in evaluation mode: training on changes nothing here.

    Args:
        gflownet: A model with `pf` and `pb` (TB, DB, SubTB, log-partition variance, ...), or with `logF` on edges (FM).
        env: Its environment, discrete, with states that are tensors.
        condition: `(condition_dim,)`, what a conditional model and environment are bound to.
        backward: "own": the model's P_B; "uniform"; "flow": the one that flows on edges imply. By default what the
            model has.
        max_depth: Most actions of a path, the exit not counted; known of torchgfn's own environments.
        is_fixed_length: Whether every complete path has as many; known of them, and else False.
        training_cost: What training cost, charged to whoever samples with the pair.
        block_rows: States that a network sees at a time; None is faster, and exact to float32 only.

    Raises:
        CapabilityError: If states are not tensors, actions not numbers, or an estimator carries a memory along a path.
        OptionError: If an option is missing, or does not fit the model.
        EnvironmentContractError: If the environment contradicts itself, or breaks.
        PolicyError: If an estimator does not fit the environment.
    """
    space = Space(env, condition, max_depth, is_fixed_length)
    laws = _Laws(gflownet, space, block_rows)
    log_pb = laws.log_pb(backward)
    try:
        return FunctionPair(
            log_pf=laws.log_pf,
            log_pb=log_pb,
            step=space.step,
            unstep=space.unstep,
            is_source=space.is_source,
            exit=space.is_finished if space.is_fixed_length else space.num_actions,
            source=env.s0,
            max_depth=space.max_depth,
            is_fixed_length=space.is_fixed_length,
            depth=space.depth,
            training_cost=training_cost,
            block_rows=block_rows,
        )
    except GfnmcError:
        raise
    except Exception as error:
        raise EnvironmentContractError(
            f"{type(env).__name__} broke while paths were built: {type(error).__name__}: {error}"
        ) from error


def torchgfn_target(
    env: Any,
    *,
    condition: Tensor | None = None,
    name: str | None = None,
    statistics: Mapping[str, BatchFunction] | None = None,
) -> Target:
    """Return `env.log_reward` as a target; objects are the tensors of finished states.

    Where objects are all assignments of values to sites, as on torchgfn's grids, spins and bits, the target says so:
    environments and local kernels of this package fit it then, and small ones are solved exactly.

    Args:
        env: A discrete environment with states that are tensors.
        condition: `(condition_dim,)`, what a conditional environment is bound to.
        name: Short name for tables and files; the environment's by default.
        statistics: Named functions of a batch of objects, each `(batch,)`, worth watching.

    Raises:
        CapabilityError: If states are not tensors.
        OptionError: If a condition is missing, or there is nothing that depends on one.
        EnergyError: Later, if the rewards are not one number an object.
    """
    space = Space(env, condition, 1, None)

    def log_reward(objects: Tensor) -> Tensor:
        with torch.no_grad():
            return in_sub_batches(lambda rows: env.log_reward(space.states(rows)), SUB_BATCH, objects)

    return from_function(
        log_reward,
        tuple(env.state_shape),
        values=facts_of(env).values,
        dtype=env.s0.dtype,
        name=name or type(env).__name__,
        statistics=statistics,
    )


class _Laws:
    """What the estimators of a model say, as scores of actions with -inf where the environment forbids one."""

    def __init__(self, gflownet: Any, space: Space, block_rows: int | None) -> None:
        self._space = space
        self._block_rows = block_rows
        found = {name: getattr(gflownet, name, None) for name in ("pf", "pb", "logF")}
        if found["pf"] is None and found["logF"] is None:
            raise CapabilityError(
                f"{type(gflownet).__name__} has neither pf nor logF; give a torchgfn model, as it was trained"
            )
        # One copy of all, so that what they share stays shared; the environment is not part of them.
        frozen = copy.deepcopy(found, {id(space.env): space.env})
        self._has_flows = found["pf"] is None
        self._forward = _Estimator(frozen["logF"] if self._has_flows else frozen["pf"], space)
        self._own = None if frozen["pb"] is None else _Estimator(frozen["pb"], space)

    def log_pf(self, states: Tensor) -> Tensor:
        """Return the scores of P_F."""
        made = self._space.states(states)
        return self._forward.scores(made, self._space.forward_masks(made))

    def log_pb(self, backward: Backward | None) -> Callable[[Tensor], Tensor]:
        """Return the function that scores P_B."""
        if backward is None:
            backward = "flow" if self._has_flows else "uniform" if self._own is None else "own"
        if backward == "uniform":
            return self._uniform
        if backward == "flow" and self._has_flows:
            return self._flows_in
        if backward == "own" and self._own is not None:
            return self._learned
        raise OptionError(
            f"backward is {backward!r}; choose 'own' for a model with a pb, 'flow' for one of flow matching, or "
            "'uniform'"
        )

    def _learned(self, states: Tensor) -> Tensor:
        assert self._own is not None
        made = self._space.states(states)
        return self._own.scores(made, made.backward_masks)

    def _uniform(self, states: Tensor) -> Tensor:
        mask = self._space.states(states).backward_masks
        return torch.where(mask, 0.0, -math.inf).to(torch.float64)

    def _flows_in(self, states: Tensor) -> Tensor:
        """Return log F of the edges into each state; all parents are asked in one call."""
        mask = self._space.states(states).backward_masks
        rows, actions = mask.nonzero(as_tuple=True)
        table = torch.full(mask.shape, -math.inf, dtype=torch.float64, device=mask.device)
        if len(rows) == 0:
            return table
        parents = self._space.unstep(states[rows], actions)
        flows = in_sub_batches(self._edge_flows, self._block_rows, parents).gather(1, actions[:, None])[:, 0]
        return table.masked_scatter(mask, flows.to(torch.float64))

    def _edge_flows(self, states: Tensor) -> Tensor:
        return self._forward.output(self._space.states(states))


class _Estimator:
    """A network of theirs, frozen.

    Args:
        estimator: What gives numbers for each action of a batch of states.
        space: The environment it was made for.
    """

    def __init__(self, estimator: Any, space: Space) -> None:
        name = type(estimator).__name__
        if hasattr(estimator, "init_carry"):
            raise CapabilityError(
                f"{name} carries a memory along a path, so what it says of a state depends on how it was reached; use "
                "an estimator of states, such as DiscretePolicyEstimator"
            )
        if not hasattr(estimator, "n_actions"):
            raise CapabilityError(f"{name} gives no logits of numbered actions; use a DiscretePolicyEstimator")
        if estimator.n_actions != space.num_actions + 1:
            raise PolicyError(
                f"{name} was made for {estimator.n_actions} actions, but {type(space.env).__name__} has "
                f"{space.num_actions + 1}, the exit included"
            )
        self._estimator = estimator.requires_grad_(False).eval()
        self._knows_conditions = len(inspect.signature(estimator.forward).parameters) > 1
        # Theirs is the softmax over allowed actions, so the outputs will do; a user's own law is asked for.
        self._is_softmax = type(estimator).to_probability_distribution.__module__ == "gfn.estimators"

    def output(self, made: Any) -> Tensor:
        """Return the numbers themselves; an estimator that knows conditions is given those of the states."""
        return self._estimator(made, made.conditions) if self._knows_conditions else self._estimator(made)

    def scores(self, made: Any, mask: Tensor) -> Tensor:
        """Return scores whose softmax is the law over the actions that a mask allows."""
        scores = self.output(made)
        if not self._is_softmax:
            scores = self._estimator.to_probability_distribution(made, scores).logits
        return torch.where(mask, scores[:, : mask.shape[1]], -math.inf)
