"""Bayesian variable selection in linear regression, with Zellner's g-prior, where every model has a closed form.

    log_prob(x) = log BF(x) + log prior(x)
    log BF(x) = (n - 1 - k) / 2 log(1 + g) - (n - 1) / 2 log(1 + g (1 - R^2))

x says which covariates a model includes, k is their number and R^2 the share of the response's variance that they
explain, with an intercept; BF is the Bayes factor against the model of the intercept alone. The prior on models is
normalised, so log Z is the logarithm of the mean Bayes factor under it.

1 - R^2 is what elimination leaves of the response's diagonal entry in the matrix of correlations, once the included
covariates are its pivots. Models that begin with the same covariates share their eliminations: all 2^p models
together cost about 6 2^p multiplications.

Reference: Liang, Paulo, Molina, Clyde and Berger 2008, "Mixtures of g priors for Bayesian variable selection".
"""

import itertools
import math
from collections.abc import Sequence
from functools import cached_property
from importlib import resources

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import normal
from gfnmc.core.errors import OptionError
from gfnmc.targets.base import ExactSolution, ModeSet, Target, check_objects, product_space, solve_by_enumeration

MAX_ENUMERATED = 20
"""Most covariates of which every model is listed: 2^20 log-densities are made in a fraction of a second, 8 MiB."""

MODE_DEPTH = 6.0
"""How far below the best model, in nats, a model may lie and still belong to a mode."""

MODE_MASS = 0.01
"""Least mass of a mode."""

# A covariate of which less is left (as a share of its variance) by those before it is a combination of them. At the
# square root of the precision, what rounding leaves of an exact combination stays below, and what it does to the
# share of any other covariate is smaller than that share.
_LEAST_SHARE = 1e-8
_CHUNK = 2**12
_INTERACTING = ("sex", "bmi", "bp", "s3", "s5")


class VariableSelection(Target):
    """The posterior of which covariates belong in a regression; objects are `(p,)` int8, 1 where one is included.

    The statistics are "model_size" (k) and "includes_<name>" for each covariate, whose mean is the posterior
    probability that it is included.

    A covariate that is a linear combination of included ones before it explains nothing more: R^2 is that of the
    span. It still counts in k.

    Attributes:
        num_rows: Observations, n.
        covariate_names: One a covariate.
        g: Units of information in the data for one in the prior.
        inclusion_probability: As given.

    Args:
        design: Covariates, `(n, p)`, without an intercept; any location and scale.
        response: `(n,)`.
        g: Positive; by default n, so that the prior is worth one observation.
        inclusion_probability: Prior probability that a covariate is included, each independently; None for a prior
            that is uniform over model sizes, and over the models of a size.
        name: Short name for tables and files.
        covariate_names: One a covariate; by default x0, x1 and so on.

    Raises:
        OptionError: If design and response do not fit each other, hold values that are not finite or columns that
            are constant, there are fewer than p + 2 observations, or another option cannot work.
    """

    dtype = torch.int8
    values = (0, 1)

    def __init__(
        self,
        design: Shaped[Tensor, "n p"],
        response: Shaped[Tensor, " n"],
        *,
        g: float | None = None,
        inclusion_probability: float | None = 0.5,
        name: str = "variable-selection",
        covariate_names: Sequence[str] | None = None,
    ) -> None:
        _check_data(design, response)
        self.num_rows, num_covariates = design.shape
        self.name = name
        self.event_shape = (num_covariates,)
        self.covariate_names = _checked_names(covariate_names, num_covariates)
        self.g = float(self.num_rows if g is None else g)
        if not math.isfinite(self.g) or self.g <= 0:
            raise OptionError(f"g is {g}; it must be finite and positive")
        self.inclusion_probability = inclusion_probability
        self._log_prior = _log_prior_by_size(num_covariates, inclusion_probability)
        columns = torch.cat([design, response[:, None]], 1).to(torch.float64)
        standardised = _standardised(columns, (*self.covariate_names, "the response"))
        self._correlations = standardised.T @ standardised

    @classmethod
    def diabetes(cls) -> "VariableSelection":
        """Return the progression of diabetes in 442 patients on 20 covariates: 1,048,576 models.

        They are the ten measured ones (age, sex, body mass index, blood pressure and six of blood serum), and the
        ten products of two of sex, bmi, bp, s3 and s5, which are standardised before they are multiplied.

        Reference: Efron, Hastie, Johnstone and Tibshirani 2004, "Least angle regression" (the data);
        `targets/data/README.md` says where the table comes from.
        """
        path = resources.files("gfnmc.targets") / "data" / "diabetes.csv"
        with path.open(encoding="utf-8") as file:
            names = file.readline().strip().split(",")[:-1]
            table = torch.from_numpy(np.loadtxt(file, delimiter=","))
        main = _standardised(table[:, :-1], names)
        column = dict(zip(names, main.unbind(1), strict=True))
        products = {f"{a}_x_{b}": column[a] * column[b] for a, b in itertools.combinations(_INTERACTING, 2)}
        design = torch.cat([main, torch.stack(list(products.values()), 1)], 1)
        return cls(design, table[:, -1], name="diabetes", covariate_names=[*names, *products])

    @classmethod
    def collinear(
        cls,
        num_blocks: int = 4,
        block_size: int = 4,
        num_rows: int = 400,
        seed: int = 0,
        *,
        inclusion_probability: float = 0.01,
    ) -> "VariableSelection":
        """Return synthetic blocks of near-twins, of which all but the last block matter: a posterior of many modes.

        The members of a block are one hidden variable and noise of a tenth of its size, so that two of them
        correlate at 0.99. The response is the sum of the hidden variables of all blocks but the last, and noise as
        large as one of them. So each of these blocks needs one member, it matters little which, and a second one
        costs log(1 + g) / 2 and the log odds of the prior, by default 7.6 nats together, more than `MODE_DEPTH`. To
        exchange members, a chain of single changes has to pay that, or do without the block for a while, which is
        dearer: the relaxation time of single-change Metropolis is 7,000 steps.

        Args:
            num_blocks: At least 2.
            block_size: Members of each, at least 2.
            num_rows: Observations.
            seed: Names the data: standard normal numbers of `normal(seed, role, ...)` with the roles
                "collinear/hidden" `(num_rows, num_blocks)`, "collinear/members" `(num_rows, num_blocks, block_size)`
                and "collinear/response" `(num_rows,)`.
            inclusion_probability: Prior probability of each covariate.

        Raises:
            OptionError: If there are too few blocks, members or observations.
        """
        if num_blocks < 2 or block_size < 2:
            raise OptionError(f"{num_blocks} blocks of {block_size} covariates; give at least 2 blocks of 2")
        hidden = normal(seed, "collinear/hidden", (num_rows, num_blocks), torch.float64)
        apart = normal(seed, "collinear/members", (num_rows, num_blocks, block_size), torch.float64)
        design = (hidden[:, :, None] + 0.1 * apart).flatten(1)
        response = hidden[:, :-1].sum(1) + normal(seed, "collinear/response", (num_rows,), torch.float64)
        names = [f"b{block}m{member}" for block in range(num_blocks) for member in range(block_size)]
        name = f"collinear-{num_blocks}x{block_size}-seed{seed}"
        return cls(design, response, inclusion_probability=inclusion_probability, name=name, covariate_names=names)

    def log_prob(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        check_objects(self, x)
        if x.shape[1] <= MAX_ENUMERATED:
            return self._table.to(x.device)[_codes(x)]
        correlations = self._correlations.to(x.device)
        unexplained = torch.cat([_unexplained(correlations, chunk) for chunk in x.split(_CHUNK)])
        return self._log_posterior(unexplained, x.sum(1, dtype=torch.int64))

    def statistics(self, x: Shaped[Tensor, "batch *event"]) -> dict[str, Shaped[Tensor, " batch"]]:
        included = {f"includes_{name}": x[:, i].to(torch.float64) for i, name in enumerate(self.covariate_names)}
        return {"model_size": x.sum(1, dtype=torch.float64)} | included

    def modes(self) -> ModeSet | None:
        """Return the groups of good models that single changes do not join, heaviest first.

        They are the components, linked by adding or removing one covariate, of the models that lie less than
        `MODE_DEPTH` below the best one, kept where they have more than `MODE_MASS` of the mass. Each goes by its best
        model. None where fewer than two are kept, and above `MAX_ENUMERATED` covariates.
        """
        return self._modes

    def exact(self) -> ExactSolution | None:
        """Return the enumerated solution, or None above `MAX_ENUMERATED` covariates."""
        return self._exact

    @cached_property
    def _table(self) -> Float64[Tensor, " models"]:
        """Return the log-density of every model, in the order of their codes."""
        return self._log_posterior(*_unexplained_and_size_of_all(self._correlations))

    @cached_property
    def _modes(self) -> ModeSet | None:
        if self.event_shape[0] > MAX_ENUMERATED:
            return None
        members = (self._table > self._table.max() - MODE_DEPTH).nonzero()[:, 0]
        component = _components(members, self.event_shape[0])
        pmf = (self._table[members] - self._table.logsumexp(0)).exp()
        mass = torch.zeros(len(members), dtype=torch.float64).index_add(0, component, pmf)
        kept = (mass > MODE_MASS).nonzero()[:, 0]
        kept = kept[mass[kept].argsort(descending=True, stable=True)]
        if len(kept) < 2:
            return None
        label = torch.full((len(self._table),), -1)
        for mode, first in enumerate(kept):
            label[members[component == first]] = mode
        best = torch.stack([torch.where(label == mode, self._table, -math.inf).argmax() for mode in range(len(kept))])
        return _ModelGroups(label, best, self.covariate_names)

    @cached_property
    def _exact(self) -> ExactSolution | None:
        if self.event_shape[0] > MAX_ENUMERATED:
            return None
        return solve_by_enumeration(self, product_space((0, 1), self.event_shape, self.dtype))

    def _log_posterior(
        self, unexplained: Float64[Tensor, " models"], size: Int64[Tensor, " models"]
    ) -> Float64[Tensor, " models"]:
        """Return log_prob by 1 - R^2 and k."""
        num_free = (self.num_rows - 1 - size).to(torch.float64)
        misfit = (self.num_rows - 1) / 2 * torch.log1p(self.g * unexplained)
        return math.log1p(self.g) / 2 * num_free - misfit + self._log_prior.to(size.device)[size]


class _ModelGroups(ModeSet):
    def __init__(self, label: Int64[Tensor, " models"], best: Int64[Tensor, " modes"], names: Sequence[str]) -> None:
        self._label = label
        self.examples = (best[:, None] // _places(len(names)) % 2).to(torch.int8)
        included = [list(itertools.compress(names, row)) for row in self.examples.tolist()]
        self.names = tuple(" + ".join(row) or "no covariate" for row in included)

    def assign(self, x: Shaped[Tensor, "batch *event"]) -> Int64[Tensor, " batch"]:
        return self._label.to(x.device)[_codes(x)]


def _eliminated(matrices: Float64[Tensor, "m m models"]) -> Float64[Tensor, "m1 m1 models"]:
    """Return what is left of the other rows and columns when the first is the pivot."""
    pivot, row = matrices[0, 0], matrices[0, 1:]
    scale = torch.where(pivot > _LEAST_SHARE, 1.0 / pivot, 0.0)
    return matrices[1:, 1:] - (scale * row)[:, None] * row


def _unexplained(correlations: Float64[Tensor, "m m"], x: Shaped[Tensor, "batch p"]) -> Float64[Tensor, " batch"]:
    """Return 1 - R^2 of each model, covariate by covariate.

    Args:
        correlations: Of the covariates and, last, the response.
        x: Models.
    """
    left = correlations[:, :, None].expand(-1, -1, len(x))
    for is_included in (x == 1).unbind(1):
        left = torch.where(is_included, _eliminated(left), left[1:, 1:])
    return left[0, 0].clamp(0.0, 1.0)


def _unexplained_and_size_of_all(
    correlations: Float64[Tensor, "m m"],
) -> tuple[Float64[Tensor, " models"], Int64[Tensor, " models"]]:
    """Return 1 - R^2 and k of every model, in the order of their codes: with each covariate their number doubles."""
    left, size = correlations[:, :, None], torch.zeros(1, dtype=torch.int64)
    for _ in range(len(correlations) - 1):
        left = torch.stack([left[1:, 1:], _eliminated(left)], -1).flatten(2)
        size = torch.stack([size, size + 1], -1).flatten()
    return left[0, 0].clamp(0.0, 1.0), size


def _components(members: Int64[Tensor, " members"], num_covariates: int) -> Int64[Tensor, " members"]:
    """Return the place, among the members, of the first one of each one's component under single changes.

    Args:
        members: Codes of models, in increasing order.
        num_covariates: Binary digits of a code.
    """
    neighbours = members[:, None] ^ _places(num_covariates)
    place = torch.searchsorted(members, neighbours).clamp(max=len(members) - 1)
    own = torch.arange(len(members))
    place = torch.where(members[place] == neighbours, place, own[:, None])
    first = own
    while True:
        spread = torch.minimum(first, first[place].amin(1))
        if torch.equal(spread, first):
            return first
        first = spread


def _places(num_covariates: int) -> Int64[Tensor, " p"]:
    return 2 ** torch.arange(num_covariates - 1, -1, -1)


def _codes(x: Shaped[Tensor, "batch p"]) -> Int64[Tensor, " batch"]:
    """Return each model as a binary number, the first covariate leading."""
    return (x * _places(x.shape[1]).to(x.device)).sum(1)


def _log_prior_by_size(num_covariates: int, inclusion_probability: float | None) -> Float64[Tensor, " sizes"]:
    """Return the log prior probability of one model of each size, 0 ... p."""
    sizes = torch.arange(num_covariates + 1, dtype=torch.float64)
    others = num_covariates - sizes
    if inclusion_probability is None:
        log_models = math.lgamma(num_covariates + 1) - (sizes + 1).lgamma() - (others + 1).lgamma()
        return -math.log(num_covariates + 1) - log_models
    if not 0 < inclusion_probability < 1:
        raise OptionError(
            f"inclusion_probability is {inclusion_probability}; it must lie between 0 and 1, or be None for a prior "
            "that is uniform over model sizes"
        )
    return sizes * math.log(inclusion_probability) + others * math.log1p(-inclusion_probability)


def _standardised(columns: Float64[Tensor, "n columns"], names: Sequence[str]) -> Float64[Tensor, "n columns"]:
    """Return columns of mean 0 and length 1, so that their inner products are correlations.

    Raises:
        OptionError: If a column is constant.
    """
    # Scaled first, so that no square over- or underflows.
    scaled = columns / columns.abs().amax(0).clamp(min=torch.finfo(torch.float64).tiny)
    centred = scaled - scaled.mean(0)
    length = centred.norm(dim=0)
    is_flat = length <= 1e-12 * len(columns) ** 0.5
    if is_flat.any():
        constant = itertools.compress(names, is_flat.tolist())
        raise OptionError(f"{', '.join(constant)} does not vary between observations; leave out what is constant")
    return centred / length


def _check_data(design: Tensor, response: Tensor) -> None:
    if design.dim() != 2 or design.shape[1] == 0 or response.shape != design.shape[:1]:
        raise OptionError(
            f"the design has shape {tuple(design.shape)} and the response {tuple(response.shape)}; give (n, p) "
            "with p at least 1, and (n,)"
        )
    if len(design) < design.shape[1] + 2:
        raise OptionError(
            f"{len(design)} observations of {design.shape[1]} covariates; give at least {design.shape[1] + 2}"
        )
    if not (design.isfinite().all() and response.isfinite().all()):
        raise OptionError("the design or the response has values that are not finite")


def _checked_names(names: Sequence[str] | None, num_covariates: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"x{i}" for i in range(num_covariates))
    if len(names) != num_covariates or len(set(names)) != num_covariates or "" in names:
        raise OptionError(f"covariate_names is {list(names)}; give {num_covariates} different ones, none of them empty")
    return tuple(names)
