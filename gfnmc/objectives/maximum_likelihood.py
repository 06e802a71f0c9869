"""Maximum likelihood: make the paths on which P_B took given objects apart likely under P_F.

    loss = -log P_F(tau),  x from the target (or from data), tau ~ P_B(. | x)

A bound on the forward Kullback-Leibler divergence, so P_F covers every mode that the objects show. It is least where
P_F(tau) = pi(x) P_B(tau|x); its value there is an entropy, not zero, and it does not learn log Z.

Reference: Zhang et al. 2022, "Unifying generative models with GFlowNets and beyond" (2209.02606).
"""

from jaxtyping import Float64
from torch import Tensor


def maximum_likelihood(log_forward: Float64[Tensor, " batch"]) -> Float64[Tensor, " batch"]:
    """Return the negative log-likelihood of each path, in nats.

    Args:
        log_forward: log P_F of the complete path, exit included, nats.
    """
    return -log_forward
