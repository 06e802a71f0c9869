"""What `diagnose` returns: every figure as plain data, with a status and sentences that say what they mean."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

SCHEMA = "gfnmc.diagnosis/1"

Row = dict[str, Any]


@dataclass(frozen=True, eq=True)
class Diagnosis:
    """Figures of chains, as plain data: JSON holds them as they are. What is not known is None.

    Attributes:
        status: "ok"; or the first that holds of "stuck" (a chain that should have moved never did), "trapped" (a chain
            cannot leave a mode, or a mode that counts was never visited), "too short" (fewer than 4 draws a chain),
            "not converged" (R-hat above 1.01, or fewer than 400 effective draws, of the worst scalar; or a mean is more
            than 5 standard errors off what is known of it).
        verdict: Sentences; the first says why the status is what it is, the others what to be careful about.
        setup: `target`, `kernel`, `num_chains`, `num_samples`, `num_warmup`, `thinning`, `seed`.
        scalars: A row for the log-density, each statistic of the target and the indicator of each mode: `name`, `kind`
            ("statistic" or "mode"), `behaviour` ("moves", "constant", "never visited" or "never left"), `exact`,
            `mean`, `mcse`, `ess_mean`, `ess_bulk`, `ess_tail`, `ess_quantiles` by probability, `integrated_time` in
            kept draws, `autocorrelation` at some `lags` of kept draws, `r_hat`, `r_hat_nested`, `deviation`, the
            standard errors that the mean is off the exact one, or off that of the reference. Of a constant, all errors,
            effective sizes and R-hats are None; an infinite R-hat is "inf".
        worst: The scalar with the fewest effective draws and the one with the largest R-hat: `statistic`, `ess_bulk`,
            `ess_tail`, `r_hat`, `r_hat_statistic`, and effective draws by second and by 1,000 target calls, with
            training and without.
        movement: `moved` by chain, the share of kept draws that differ from the one before; `stuck`, which chains never
            moved; `trapped`, the chains that stayed in one mode, each with its `mode`.
        modes: A row a mode: `name`, `found_after_calls`, `found_after_seconds` (training included), `mass`,
            `mass_error`, `exact_mass`, `ess`, `ess_tail`, `r_hat`, `mean_stay` in kept draws, and `chains`, how many of
            them were in it. Empty where the target knows no modes.
        transitions: `counts[from][to]` between successive kept draws, `switches`, `switches_per_1000_steps`,
            `round_trips`; None where the target knows no modes.
        discovery: `calls`, `seconds` and `modes_found` at each first visit, in order: the discovery curve.
        proposal: `acceptance` (overall, parts, lazy, no_reverse_move, by_num_back_steps, by_depth), `reasons` counted,
            `log_ratio` quantiles, `jumps`.
        distances: A row a distance to the exact law or to a reference: `name`, `to`, `value`, `num_draws`,
            `num_reference`, `iid_floor`, and `iid_floor_at_worst_ess`, what as many independent draws as the worst
            scalar is worth would have.
        pair: The figures of the pair (`diagnostics.PairQuality`), `importance_ess`, `num_draws`, `max_weight`; None
            without a pair.
        evidence: A row an estimate of log Z: `method`, `log_z`, `standard_error`, `low` and `high` (95 %), `exact`,
            `k_hat`, `chain_ess`, `num_draws`, `label`. Empty without a pair.
        bounds: `elbo` and `eubo` with errors, their `gap`, `eubo_from`, `label`; None without a pair.
        recycled: A row a statistic that the kernel recycled: `name`, `mean`, `mcse`, `plain_mcse`, `gain`, the ratio of
            the variances; empty where it recycled none.
        cost: `training` and `sampling`, each `target_calls`, `policy_calls`, `seconds`.
    """

    status: str
    verdict: tuple[str, ...]
    setup: Row
    scalars: tuple[Row, ...]
    worst: Row
    movement: Row
    modes: tuple[Row, ...]
    transitions: Row | None
    discovery: Row | None
    proposal: Row
    distances: tuple[Row, ...]
    pair: Row | None
    evidence: tuple[Row, ...]
    bounds: Row | None
    recycled: tuple[Row, ...]
    cost: Row

    def __repr__(self) -> str:
        return f"Diagnosis({self.status!r}, {self.verdict[0]!r})"

    def __getitem__(self, name: str) -> Row:
        """Return the row of a scalar by its name, such as "log_prob" or "in spins up".

        Raises:
            KeyError: If there is none, with the names that there are.
        """
        for row in self.scalars:
            if row["name"] == name:
                return row
        raise KeyError(f"{name!r} is none of {[row['name'] for row in self.scalars]}")

    @property
    def is_ok(self) -> bool:
        """Whether the status is "ok"."""
        return self.status == "ok"

    def to_dict(self) -> Row:
        """Return everything as data that JSON holds, with the name of its schema."""
        return {"schema": SCHEMA, **json.loads(json.dumps(asdict(self), allow_nan=False))}

    @classmethod
    def from_dict(cls, figures: Mapping[str, Any]) -> "Diagnosis":
        """Return the diagnosis that `to_dict` made plain data of."""
        values: dict[str, Any] = {field.name: figures[field.name] for field in fields(cls)}
        for name in ("verdict", "scalars", "modes", "distances", "evidence", "recycled"):
            values[name] = tuple(values[name])
        return cls(**values)

    def to_dataset(self) -> Any:
        """Return the figures as an `xarray.Dataset`, to stand as the group "diagnosis" of an ArviZ tree.

        The figures of scalars are variables over `scalar`, those of modes over `mode`, NaN where not known; status,
        verdict and all other figures are in the attributes, the latter as JSON.
        """
        import xarray

        variables = {
            name: ("scalar", _column(self.scalars, name))
            for name in ("mean", "mcse", "ess_mean", "ess_bulk", "ess_tail", "integrated_time", "r_hat", "r_hat_nested")
        }
        coordinates: dict[str, Any] = {"scalar": [row["name"] for row in self.scalars]}
        if self.modes and self.transitions is not None:
            coordinates |= {name: [row["name"] for row in self.modes] for name in ("mode", "next_mode")}
            variables |= {
                name: ("mode", _column(self.modes, name))
                for name in (
                    "mass",
                    "mass_error",
                    "exact_mass",
                    "mean_stay",
                    "found_after_calls",
                    "found_after_seconds",
                )
            }
            variables["transitions"] = (("mode", "next_mode"), self.transitions["counts"])  # type: ignore[assignment]
        attributes = {"status": self.status, "verdict": list(self.verdict), "figures": json.dumps(self.to_dict())}
        return xarray.Dataset(variables, coordinates, attributes)


def _column(rows: tuple[Row, ...], name: str) -> list[float]:
    """Return a figure of every row, as a number."""
    return [float("nan") if row[name] is None else float(row[name]) for row in rows]
