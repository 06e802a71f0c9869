"""Hold a target to its contract, and everything it offers to its log-density.

A target may offer differences, partial energies, symmetries, modes and an exact solution, each to save work. Kernels
and training believe them, so a target whose `log_prob_delta` is not the difference of its `log_prob` is sampled wrongly
without a sound.
"""

import itertools

import torch
from jaxtyping import Shaped
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, EnergyError
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.kernels.colouring import colours_of
from gfnmc.targets.base import Target, check_objects, checked_log_prob
from gfnmc.targets.relaxed import object_weights
from gfnmc.testing.environment_checks import built_objects

_NUM_OBJECTS = 64
_NUM_SITES = 16
_TOLERANCE = 1e-9


def check_target(
    target: Target,
    environment: DiscreteEnvironment | None = None,
    *,
    objects: Shaped[Tensor, "objects *event"] | None = None,
) -> None:
    """Hold a target to its contract, and everything it offers to its `log_prob`.

    Args:
        target: Any target that is not noisy.
        environment: Builds objects to ask about, where the target has no exact draws and `objects` are not given.
        objects: Objects to ask about.

    Raises:
        EnergyError: At the first contradiction, with the object that shows it.
        ObjectError: If the environment builds objects that are not the target's.
        CapabilityError: If the target is noisy, or there are no objects to ask about.
    """
    if target.is_noisy:
        raise CapabilityError(f"{target.name} is noisy, and estimates cannot be compared with each other")
    objects = _objects_of(target, environment) if objects is None else objects
    check_objects(target, objects)
    log_prob = _checked_rows(target, objects)
    _require_energy(
        bool((log_prob > -torch.inf).any()), f"{target.name}.log_prob is -inf for all {len(objects)} objects"
    )
    _check_delta(target, objects[log_prob > -torch.inf])
    _check_deltas(target, objects[log_prob > -torch.inf])
    _check_interactions(target, objects[log_prob > -torch.inf])
    _check_partial(target, objects, log_prob)
    _check_relaxed(target, objects, log_prob)
    _check_symmetries(target, objects, log_prob)
    _check_statistics(target, objects)
    _check_modes(target, objects)
    _check_exact(target)


def _objects_of(target: Target, environment: DiscreteEnvironment | None) -> Tensor:
    exact = target.exact()
    if exact is not None and exact.can_sample:
        return exact.sample(PhiloxDraws(0, "check_target", _NUM_OBJECTS)).unique(dim=0)
    if environment is not None:
        return built_objects(environment)
    raise CapabilityError(
        f"{target.name} has no exact draws, so there are no objects to ask about; give an environment that builds "
        "them, or `objects`"
    )


def _checked_rows(target: Target, objects: Tensor) -> Tensor:
    """Return the log-densities, the same whatever else is asked in the same batch."""
    log_prob = checked_log_prob(target, objects)
    alone = torch.cat([checked_log_prob(target, objects[row : row + 1]) for row in range(len(objects))])
    turned = checked_log_prob(target, objects.flip(0)).flip(0)
    for other, where in ((alone, "alone"), (turned, "in a batch in another order")):
        _agree(log_prob, other, objects, f"{target.name}.log_prob", "in a batch", where)
    return log_prob


def _check_delta(target: Target, objects: Tensor) -> None:
    if target.values is None:
        return
    num_sites = torch.Size(target.event_shape).numel()
    sites = torch.arange(num_sites).repeat(-(-len(objects) // num_sites))[: len(objects)]
    given = target.log_prob_delta(objects, sites)
    wanted = Target.log_prob_delta(target, objects, sites)
    if given.shape != wanted.shape:
        raise EnergyError(f"{target.name}.log_prob_delta has shape {tuple(given.shape)}, not {tuple(wanted.shape)}")
    for place, value in enumerate(target.values):
        what = f"{target.name}.log_prob_delta for the value {value}"
        _agree(wanted[:, place], given[:, place], objects, what, "by log_prob", "as returned")


def _check_deltas(target: Target, objects: Tensor) -> None:
    """Check the changes at several sites at once against those at one."""
    if target.values is None:
        return
    sites = _some_sites(target).flip(0)
    given = target.log_prob_deltas(objects, sites)
    wanted = Target.log_prob_deltas(target, objects, sites)
    if given.shape != wanted.shape:
        raise EnergyError(f"{target.name}.log_prob_deltas has shape {tuple(given.shape)}, not {tuple(wanted.shape)}")
    for place, site in enumerate(sites.tolist()):
        for index, value in enumerate(target.values):
            what = f"{target.name}.log_prob_deltas for the value {value} at site {site}"
            _agree(wanted[:, place, index], given[:, place, index], objects, what, "by log_prob_delta", "as returned")


def _check_interactions(target: Target, objects: Tensor) -> None:
    """Check that sites that are said not to interact change the energy each for itself."""
    if target.values is None or target.interactions() is None:
        return
    values, before = torch.tensor(target.values, dtype=objects.dtype), checked_log_prob(target, objects)
    for sites in colours_of(target):
        for pair in itertools.combinations(sites[:_NUM_SITES].tolist(), 2):
            changes = []
            for changed in (pair[:1], pair[1:], pair):
                turned = objects.clone(memory_format=torch.contiguous_format)
                places = (turned.flatten(1)[:, changed, None] == values).to(torch.uint8).argmax(2)
                turned.flatten(1)[:, changed] = values[(places + 1) % len(values)]
                changes.append(checked_log_prob(target, turned) - before)
            what = f"the change of {target.name}.log_prob at the sites {pair}, which `interactions` does not pair"
            _agree(changes[0] + changes[1], changes[2], objects, what, "one by one", "together")


def _some_sites(target: Target) -> Tensor:
    """Return some sites from the first to the last."""
    num_sites = torch.Size(target.event_shape).numel()
    return torch.linspace(0, num_sites - 1, min(num_sites, _NUM_SITES)).round().to(torch.int64)


def _check_partial(target: Target, objects: Tensor, log_prob: Tensor) -> None:
    try:
        partial = target.partial_log_prob(objects, torch.ones(objects.shape, dtype=torch.bool))
    except CapabilityError:
        return
    what = f"{target.name}.partial_log_prob with every site assigned"
    _agree(log_prob, partial, objects, what, "by log_prob", "as returned")


def _check_relaxed(target: Target, objects: Tensor, log_prob: Tensor) -> None:
    """Check the log-density of relaxed objects, at corners that stand for objects."""
    if not target.offers_relaxed:
        return
    relaxed = target.log_prob_relaxed(object_weights(target, objects))
    what = f"{target.name}.log_prob_relaxed at one-hot points"
    _agree(log_prob, relaxed, objects, what, "by log_prob", "as returned")


def _check_symmetries(target: Target, objects: Tensor, log_prob: Tensor) -> None:
    symmetries = target.symmetries()
    if not symmetries:
        return
    if target.values is None:
        raise EnergyError(f"{target.name} declares symmetries, but no `values` that they could exchange")
    values = torch.tensor(target.values, dtype=objects.dtype)
    indices = (objects.flatten(1)[..., None] == values).to(torch.int64).argmax(-1)
    for symmetry in symmetries:
        image = values[symmetry.apply(indices)].reshape(objects.shape)
        what = f"{target.name}.log_prob of an object and of its image under the symmetry {symmetry.name!r}"
        _agree(log_prob, checked_log_prob(target, image), objects, what, "the object's", "the image's")


def _check_statistics(target: Target, objects: Tensor) -> None:
    for name, value in target.statistics(objects).items():
        what = f"the statistic {name!r} of {target.name}"
        _require_energy(
            value.shape == objects.shape[:1],
            f"{what} has shape {tuple(value.shape)} for {len(objects)} objects; return one value an object",
        )
        _require_energy(bool(value.isfinite().all()), f"{what} is not finite for every object")
        alone = torch.cat([target.statistics(objects[row : row + 1])[name] for row in range(len(objects))])
        _agree(value.double(), alone.double(), objects, what, "in a batch", "alone")


def _check_modes(target: Target, objects: Tensor) -> None:
    modes = target.modes()
    if modes is None:
        return
    label, own = modes.assign(objects), modes.assign(modes.examples)
    inside = (label >= -1) & (label < len(modes))
    _require_energy(
        label.shape == objects.shape[:1] and bool(inside.all()),
        f"the modes of {target.name} assign ids outside -1 ... {len(modes) - 1}, or not one an object",
    )
    _require_energy(
        own.tolist() == list(range(len(modes))),
        f"the examples of the modes of {target.name} lie in the modes {own.tolist()}; each must lie in its own",
    )


def _check_exact(target: Target) -> None:
    """Check an enumerated solution against the density."""
    exact = target.exact()
    if exact is None or exact.support is None or exact.log_pmf is None:
        return
    log_prob = checked_log_prob(target, exact.support)
    log_z = float(log_prob.logsumexp(0))
    _require_energy(
        abs(log_z - exact.log_z) <= _TOLERANCE * (1.0 + abs(log_z)),
        f"the exact log_z of {target.name} is {exact.log_z}, but its objects add up to {log_z}",
    )
    what = f"the exact log_pmf of {target.name}"
    _agree(log_prob - log_z, exact.log_pmf, exact.support, what, "by log_prob", "as returned")


def _agree(wanted: Tensor, found: Tensor, objects: Tensor, what: str, one: str, other: str) -> None:
    """Raise where two lists of numbers differ by more than rounding."""
    _require_energy(found.shape == wanted.shape, f"{what} has shape {tuple(found.shape)}, not {tuple(wanted.shape)}")
    same_infinite = (wanted == found) | (wanted.isfinite() & found.isfinite())
    close = same_infinite & ((wanted == found) | ((wanted - found).abs() <= _TOLERANCE * (1.0 + wanted.abs())))
    if not close.all():
        row = int((~close).nonzero()[0, 0])
        raise EnergyError(
            f"{what}: {one} {float(wanted[row]):.12g}, {other} {float(found[row]):.12g}, for the object "
            f"{objects[row].tolist()}; they must be equal"
        )


def _require_energy(holds: bool, message: str) -> None:
    if not holds:
        raise EnergyError(message)
