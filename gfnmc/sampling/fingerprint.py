"""What makes the draws of a run: versions, device, target and kernel, as descriptions that can be compared.

A target is known by its name, shape and dtype, and by the densities of the objects that the run began with. A kernel
is known by its options and by the weights of its pair.
"""

import platform
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gfnmc.core.errors import MismatchError
from gfnmc.kernels.base import Kernel, State
from gfnmc.policies.pair import GFlowNet
from gfnmc.sampling.checked_files import digest_of, digest_of_array
from gfnmc.targets.base import Target

_PROBED = 16
_TOLERANCE = 1e-6
_PLAIN = (bool, int, float, str, type(None))
# Told, not compared: they change no draw.
_TOLD = ("python", "platform")


def describe(kernel: Kernel, state: State) -> dict[str, Any]:
    """Return what makes the draws of a kernel, as plain data.

    Args:
        kernel: What moves the chains.
        state: Where they stand.
    """
    return {
        "gfnmc": version("gfnmc"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(state.position.device),
        "target": describe_target(kernel.target),
        "kernel": describe_kernel(kernel),
    }


def describe_target(target: Target) -> dict[str, Any]:
    """Return what tells a target from others without evaluating it."""
    return {
        "name": target.name,
        "event_shape": list(target.event_shape),
        "dtype": str(target.dtype),
        "values": None if target.values is None else list(target.values),
        "is_noisy": target.is_noisy,
    }


def describe_kernel(kernel: Kernel) -> dict[str, Any]:
    """Return the options of a kernel and of those that it is made of, and a digest of the weights of its pair."""
    lazy = {name for kind in type(kernel).__mro__ for name, it in vars(kind).items() if isinstance(it, cached_property)}
    options = {}
    for name, value in sorted(vars(kernel).items()):
        if name.startswith("_") or name in lazy or name in ("target", "environment", "training_cost"):
            continue
        described = _described(value)
        if described is not None:
            options[name] = described
    return {"class": type(kernel).__name__, "name": kernel.name, "options": options}


def differences(was: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return what two descriptions differ in, by name."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted(was.keys() | now.keys()):
        before, after = was.get(name), now.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= differences(before, after, f"{prefix}{name}.")
        elif before != after and prefix + name not in _TOLD:
            found[prefix + name] = (before, after)
    return found


def density_differences(target: Target, state: State) -> dict[str, tuple[Any, Any]]:
    """Return where a target gives other densities than a run began with.

    It is asked for some of them; of a noisy target for none.

    Args:
        target: What is asked.
        state: What the run began with.
    """
    if target.is_noisy:
        return {}
    wanted = state.log_prob[:_PROBED]
    with torch.no_grad():
        found = target.log_prob(state.position[:_PROBED])
    is_other = ~torch.isclose(found, wanted, rtol=_TOLERANCE, atol=_TOLERANCE)
    if not is_other.any():
        return {}
    chain = int(is_other.nonzero()[0, 0])
    return {f"target.log_prob where chain {chain} began": (float(wanted[chain]), float(found[chain]))}


def refuse(mismatches: Mapping[str, tuple[Any, Any]], path: object) -> None:
    """Refuse what would not make the same draws.

    Raises:
        MismatchError: If there is a mismatch.
    """
    if mismatches:
        raise MismatchError(
            f"the run in {path} was made by something else: {in_words(mismatches)}. Its draws would not be those of "
            "one run; give what it was made by, or go on all the same with allow_mismatch=True (--allow-mismatch), and "
            "the run says so",
            mismatches=dict(mismatches),
        )


def in_words(mismatches: Mapping[str, tuple[Any, Any]]) -> str:
    """Return what differs, for an error."""
    return "; ".join(f"{name} was {was}, and is {now}" for name, (was, now) in mismatches.items())


def _described(value: Any) -> Any:
    """Return plain data that stands for a value, or None where nothing is known to."""
    if isinstance(value, Kernel):
        return describe_kernel(value)
    if isinstance(value, GFlowNet):
        return _describe_pair(value)
    if isinstance(value, Tensor):
        return digest_of_array(value.detach().cpu().numpy())
    if isinstance(value, float):
        # JSON has no infinity.
        return repr(value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, tuple | list):
        described = [_described(item) for item in value]
        return None if any(item is None for item in described) else described
    if is_dataclass(value) and not isinstance(value, type):
        options = {field.name: _described(getattr(value, field.name)) for field in fields(value)}
        return {"class": type(value).__name__, "options": options}
    return None


def _describe_pair(pair: GFlowNet) -> dict[str, Any]:
    weights = {
        f"{part}.{name}": digest_of_array(value.detach().cpu().numpy())
        for part, policy in (("forward", pair.forward), ("backward", pair.backward))
        for name, value in policy.state_dict().items()
    }
    dtypes = sorted({str(value.dtype) for value in pair.forward.state_dict().values()})
    return {
        "forward": type(pair.forward).__name__,
        "backward": type(pair.backward).__name__,
        "dtype": ", ".join(dtypes),
        "weights": digest_of(*(f"{name} {digest}".encode() for name, digest in sorted(weights.items()))),
    }
