"""The kinds of policies and flows that can be written down as plain data and built again; data never holds code."""

from collections.abc import Mapping
from typing import Any

import torch

from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.core.symmetry import Symmetry
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.policies.base import DiscretePolicy
from gfnmc.policies.flow import MLPFlow, StateFlow
from gfnmc.policies.max_entropy import MaxEntropyPolicy
from gfnmc.policies.message_passing import MessagePassingPolicy
from gfnmc.policies.mlp import MLPPolicy
from gfnmc.policies.symmetrised import AveragedPolicy, CanonicalPolicy
from gfnmc.policies.transformer import TransformerPolicy
from gfnmc.policies.uniform import UniformPolicy

_POLICIES: dict[str, type[DiscretePolicy]] = {
    "uniform": UniformPolicy,
    "max_entropy": MaxEntropyPolicy,
    "mlp": MLPPolicy,
    "transformer": TransformerPolicy,
    "message_passing": MessagePassingPolicy,
    "averaged": AveragedPolicy,
    "canonical": CanonicalPolicy,
}
_FLOWS: dict[str, type[StateFlow]] = {"mlp": MLPFlow}
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def describe_policy(policy: DiscretePolicy) -> dict[str, Any]:
    """Return what a policy was made with, as JSON takes it; weights and a bound condition are not part of it.

    Raises:
        CapabilityError: If policies of this kind are not saved.
    """
    exploration = {"temperature": policy.temperature, "epsilon": policy.epsilon}
    return _described(policy, _POLICIES) | {"exploration": exploration}


def build_policy(
    description: Mapping[str, Any], environment: DiscreteEnvironment, direction: Direction
) -> DiscretePolicy:
    """Return a policy like the one described, with weights of its own.

    Raises:
        OptionError: If the description is of no known kind, or of other options than its constructor takes.
    """
    kind, options = _kind_and_options(description, _POLICIES)
    exploration = options.pop("exploration")
    if "policy" in options:
        inner = build_policy(options.pop("policy"), environment, direction)
        policy = _made(kind, inner, **_decoded(options, environment))
    else:
        policy = _made(kind, environment, direction, **_decoded(options, environment))
    return policy.with_exploration(**exploration)


def describe_flow(flow: StateFlow) -> dict[str, Any]:
    """Return what a state flow was made with, as JSON takes it.

    Raises:
        CapabilityError: If flows of this kind are not saved.
    """
    return _described(flow, _FLOWS)


def build_flow(description: Mapping[str, Any], environment: DiscreteEnvironment) -> StateFlow:
    """Return a state flow like the one described, with weights of its own.

    Raises:
        OptionError: As `build_policy`.
    """
    kind, options = _kind_and_options(description, _FLOWS)
    return _made(kind, environment, **_decoded(options, environment))


def _described(part: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    for name, kind in kinds.items():
        # A subclass may do anything, so it is of no kind known here.
        if type(part) is kind:
            return {"kind": name} | {key: _encoded(value) for key, value in part.options().items()}
    raise CapabilityError(f"a {type(part).__name__} cannot be saved; what can is of a kind among {', '.join(kinds)}")


def _kind_and_options(description: Mapping[str, Any], kinds: Mapping[str, type]) -> tuple[Any, dict[str, Any]]:
    options = dict(description)
    kind = options.pop("kind")
    if kind not in kinds:
        raise OptionError(f"there is no kind {kind!r}; known are {', '.join(kinds)}")
    return kinds[kind], options


def _made(kind: Any, *parts: Any, **options: Any) -> Any:
    try:
        return kind(*parts, **options)
    except TypeError as error:
        raise OptionError(f"a {kind.__name__} is not made with {sorted(options)}: {error}") from error


def _encoded(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, DiscretePolicy):
        return describe_policy(value)
    if isinstance(value, StateFlow):
        return describe_flow(value)
    if isinstance(value, Symmetry):
        return {"name": value.name, "sites": list(value.sites), "values": list(value.values)}
    if isinstance(value, tuple):
        return [_encoded(item) for item in value]
    return value


def _decoded(options: Mapping[str, Any], environment: DiscreteEnvironment) -> dict[str, Any]:
    """Return options as constructors take them; the name of an option says what its value stands for."""
    decoded = dict(options)
    if "dtype" in decoded:
        decoded["dtype"] = _DTYPES[decoded["dtype"]]
    if "symmetries" in decoded:
        decoded["symmetries"] = [
            Symmetry(one["name"], tuple(one["sites"]), tuple(one["values"])) for one in decoded["symmetries"]
        ]
    if "log_count" in decoded:
        decoded["log_count"] = build_flow(decoded["log_count"], environment)
    return decoded
