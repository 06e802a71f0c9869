"""A new pair, as a config describes it."""

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
