"""A new pair as a config describes it, and whether pair, config and target fit each other."""

from collections.abc import Sequence

from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.core.symmetry import Symmetry
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.policies.base import DiscretePolicy
from gfnmc.policies.flow import MLPFlow, StateFlow
from gfnmc.policies.flow_backward import FlowBackwardPolicy
from gfnmc.policies.max_entropy import MaxEntropyPolicy
from gfnmc.policies.message_passing import MessagePassingPolicy
from gfnmc.policies.mlp import MLPPolicy
from gfnmc.policies.pair import GFlowNet
from gfnmc.policies.symmetrised import AveragedPolicy, CanonicalPolicy
from gfnmc.policies.transformer import TransformerPolicy
from gfnmc.policies.uniform import UniformPolicy
from gfnmc.targets.base import Target
from gfnmc.targets.conditional import ConditionalTarget
from gfnmc.training.config import TrainingConfig
from gfnmc.training.losses import LEARNS_FLOW

_NETWORKS = {"mlp": MLPPolicy, "transformer": TransformerPolicy, "message_passing": MessagePassingPolicy}


def build_pair(
    environment: DiscreteEnvironment,
    config: TrainingConfig,
    *,
    seed: int,
    condition_names: Sequence[str] = (),
    symmetries: Sequence[Symmetry] = (),
) -> GFlowNet:
    """Return a pair that has learned nothing yet.

    Args:
        environment: Where it acts.
        config: Says which network and which backward policy.
        seed: Names the initial weights.
        condition_names: What the numbers of a condition are; none for a single target.
        symmetries: What the target declares.

    Raises:
        OptionError: If the config wants symmetries and there are none, or a network that does not fit.
        CapabilityError: If the environment does not offer what the network reads.
    """
    num_conditions = len(condition_names)
    forward = _network(environment, Direction.FORWARD, config, seed, num_conditions)
    if config.symmetry != "none":
        if not symmetries:
            raise OptionError("symmetry is wanted, but the target declares no symmetries; choose symmetry='none'")
        wrap = AveragedPolicy if config.symmetry == "average" else CanonicalPolicy
        forward = wrap(forward, symmetries)
    log_flow = None
    if config.objective in LEARNS_FLOW:
        log_flow = _flow(environment, config, seed, num_conditions)
    backward = _backward(environment, config, seed, forward, log_flow)
    return GFlowNet(forward, backward, log_flow=log_flow, condition_names=condition_names)


def check_pair(
    pair: GFlowNet, environment: DiscreteEnvironment, config: TrainingConfig, names: tuple[str, ...]
) -> None:
    """Refuse a pair that cannot be trained.

    Raises:
        OptionError: If it is frozen, bound, or on another environment, or lacks what the objective learns.
    """
    if pair.environment is not environment:
        raise OptionError("the pair acts on another environment object than the one to train on")
    if not pair.log_z_weight.requires_grad:
        raise OptionError("the pair is frozen, as trained and loaded pairs are; give one that can learn")
    if pair.condition is not None or pair.condition_names != tuple(names):
        raise OptionError(
            f"the pair's conditions are {pair.condition_names}, those of the target {tuple(names)}; give a pair for "
            "the same conditions, not bound to one"
        )
    if config.objective in LEARNS_FLOW and pair.log_flow is None:
        raise OptionError(f"{config.objective} learns a state flow, and the pair has none; build it with log_flow")


def check_config(config: TrainingConfig, target: Target | ConditionalTarget, has_seeds: bool) -> None:
    """Refuse options that do not go with a target.

    Raises:
        OptionError: If an option makes no sense for it.
        CapabilityError: If it does not offer what an option needs.
    """
    if config.objective == "maximum_likelihood" and not has_seeds:
        raise OptionError(f"maximum likelihood learns seeds, and {target.name} can have none; choose another objective")
    if isinstance(target, Target):
        if target.is_noisy and config.objective == "modified_detailed_balance":
            raise CapabilityError(f"{target.name} is noisy; modified detailed balance needs the density of each state")
        return
    if config.objective == "log_partition_variance":
        raise OptionError(
            "log-partition variance takes one log Z for a whole batch, and a family of targets has one for each "
            "condition; choose trajectory_balance"
        )
    if config.reward_schedule in ("annealed", "adaptive") or config.chain_batch_size:
        raise OptionError(
            "a family of targets is trained at its own conditions; choose reward_schedule='auto' or 'fixed', and "
            "chain_batch_size=0"
        )


def _network(
    environment: DiscreteEnvironment, direction: Direction, config: TrainingConfig, seed: int, num_conditions: int
) -> DiscretePolicy:
    return _NETWORKS[config.network](
        environment,
        direction,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_conditions=num_conditions,
        seed=seed,
    )


def _flow(environment: DiscreteEnvironment, config: TrainingConfig, seed: int, num_conditions: int) -> StateFlow:
    return MLPFlow(
        environment,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_conditions=num_conditions,
        seed=seed,
    )


def _backward(
    environment: DiscreteEnvironment,
    config: TrainingConfig,
    seed: int,
    forward: DiscretePolicy,
    log_flow: StateFlow | None,
) -> DiscretePolicy:
    if config.backward in ("learned", "trajectory_likelihood"):
        return _network(environment, Direction.BACKWARD, config, seed, forward.num_conditions)
    if config.backward == "max_entropy":
        try:
            return MaxEntropyPolicy(environment)
        except CapabilityError:
            return MaxEntropyPolicy(environment, log_count=_flow(environment, config, seed, 0))
    if config.backward == "flow":
        assert log_flow is not None
        return FlowBackwardPolicy(forward, log_flow)
    return UniformPolicy(environment, Direction.BACKWARD)
