"""Where a kernel stands, as a safetensors file: tensors and nothing else."""

from torch import Tensor

from gfnmc.core.errors import DamageError
from gfnmc.kernels.base import Kernel, State

_CACHE = "cache."


def pack_state(kernel: Kernel, state: State) -> bytes:
    """Return a state as the content of a file.

    Args:
        kernel: Whose state it is.
        state: Objects, log-densities and what the kernel keeps beside.

    Raises:
        CapabilityError: If the kernel does not say how its cache is written.
    """
    import safetensors.torch

    kept = {_CACHE + name: value for name, value in kernel.cache_tensors(state.cache).items()}
    tensors = {"position": state.position, "log_prob": state.log_prob, **kept}
    # Copied: some are views of others.
    return safetensors.torch.save({name: value.detach().clone().contiguous() for name, value in tensors.items()})


def unpack_state(kernel: Kernel, data: bytes) -> State:
    """Return the state that `pack_state` was given.

    Args:
        kernel: The same kernel, or one made alike.
        data: What it returned.

    Raises:
        DamageError: If it is something else.
    """
    position, log_prob, kept = _read(data)
    return State(position, log_prob, kernel.cache_from(kept))


def read_start(data: bytes) -> State:
    """Return a state without what a kernel keeps beside objects and log-densities.

    Args:
        data: What `pack_state` returned.

    Raises:
        DamageError: If it is something else.
    """
    position, log_prob, _ = _read(data)
    return State(position, log_prob)


def _read(data: bytes) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    import safetensors
    import safetensors.torch

    try:
        tensors = safetensors.torch.load(data)
        position, log_prob = tensors.pop("position"), tensors.pop("log_prob")
    except (safetensors.SafetensorError, KeyError) as error:
        raise DamageError(f"the state of a kernel cannot be read: {error}", part="state") from error
    return position, log_prob, {name.removeprefix(_CACHE): value for name, value in tensors.items()}
