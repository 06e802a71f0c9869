"""Mutate the acceptance code, and fail if a mutant lives that is not known to be equivalent.

    pip install "mutmut==3.8.1"
    python tests/mutation/run.py
    python tests/mutation/run.py gfnmc.kernels.gibbs gfnmc.kernels.informed

Works on a copy in a temporary folder. What it finds, and why the equivalent mutants are: docs/reference/mutants.md.
"""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("gfnmc", "tests", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
TESTS = [
    f"tests/exact/test_acceptance{which}.py" for which in ("", "_of_many", "_of_informed", "_of_laws", "_of_sweeps")
]
# By module, as `function` or `Class.method`.
MUTATED = {
    "gfnmc.core.coins": ("FewLaws.__init__", "FewLaws.thresholds", "FewLaws.is_yes", "KeyedCoins.decide"),
    "gfnmc.core.tempering": ("tempered_change",),
    "gfnmc.kernels.bond_sweep": ("BondSweep.__call__", "BondSweep._laws", "_sums_over_sites"),
    "gfnmc.kernels.branch": ("log_branch_probability",),
    "gfnmc.kernels.chromatic_metropolis": (
        "ChromaticMetropolis.step",
        "_Metropolis.__init__",
        "_Metropolis.log_flip",
        "_Metropolis.choose",
    ),
    "gfnmc.kernels.clusters": ("log_active_probability", "ClusterKernel._draw_active"),
    "gfnmc.kernels.delayed_acceptance": (
        "log_second_hastings",
        "DelayedAcceptance.step",
        "DelayedAcceptance._surrogate_change",
        "DelayedAcceptance._check_positive",
    ),
    "gfnmc.kernels.gibbs": (
        "_normalised",
        "Gibbs.step",
        "Gibbs._one_by_one",
        "Gibbs._delta",
        "_HeatBath.log_flip",
        "_HeatBath.choose",
    ),
    "gfnmc.kernels.informed": (
        "draw_change",
        "chosen",
        "_differs",
        "InformedKernel.step",
        "InformedKernel._propose",
        "InformedKernel._attempt",
        "InformedKernel._known",
        "InformedKernel._unseen",
        "InformedKernel._looked",
        "InformedKernel._tempered",
        "InformedKernel._power",
    ),
    "gfnmc.kernels.metropolis": ("*",),
    "gfnmc.kernels.multiple_try": (
        "log_multiple_try_ratio",
        "candidate_weights",
        "_reasons",
        "MultipleTrySuffix.step",
        "MultipleTrySuffix._weighed",
        "MultipleTrySuffix._log_path_weights",
        "MultipleTrySuffix._log_tempered",
    ),
    "gfnmc.kernels.parallel_tempering": ("log_swap_ratio",),
    "gfnmc.kernels.site_rules": ("report",),
    "gfnmc.kernels.suffix": ("log_hastings_ratio",),
    "gfnmc.kernels.sweep": ("ChromaticSweep._by_changes", "ChromaticSweep._chosen", "ChromaticSweep._deltas"),
    "gfnmc.kernels.swendsen_wang": ("log_flip_probability", "SwendsenWang._turns"),
}
EQUIVALENT = (
    # ACCEPTED is 0.
    "reason = torch.where(is_accepted, zero - Reason.ACCEPTED, zero + Reason.REJECTED)",
    # Assigned to no rows.
    "return position.new_zeros(1, dtype=torch.float64)",
    # Only where a row is lazy or has no way back; `decide` looks at neither.
    "log_prob = torch.full_like(state.log_prob, +torch.inf)",
    # Only in tries that are not evaluated, whose weights are taken out below.
    "log_prob = torch.full_like(log_paths[:, 1:], +torch.inf)",
    # A lone weight is all the weight, whatever it is.
    "current = torch.where(evaluated.any(1), log_weights[:, 0], 1.0)",
    # Both are always scored.
    "assert down.log_backward is not None or up.log_forward is not None",
    # 0 to 3 are the same int8 from float32.
    "zero = torch.zeros(len(is_accepted), dtype=None)",
    "zero = torch.zeros(len(is_accepted), )",
    # Names of more rows than there are.
    "new, old = checked_log_prob(self.surrogate, both, rows=chain.repeat(3)).split(len(chain))",
    # 2 v - 1 is 1 or -1.
    "on_site = field / (2.0 * values - 1.0)",
    # The objects are on the CPU.
    'values, log_prob, value_draws = self._values.to(None), state.log_prob.clone(), draws.role("value")',
    # The last dimension of two is number 1.
    "has_change = (law > -torch.inf).any(+1)",
    # The first of two equal columns.
    "is_warm = self._power(state.log_prob).expand(len(state.log_prob), 2)[:, 0] > 0.0",
    # An informed kernel refuses noisy targets, and no other asks for draws.
    "log_prob = log_prob.masked_scatter(evaluated, self._evaluate(move.position, evaluated, None))",
    # Every pair of bytes is in the table.
    'return self._pairs.take(which.view("<u2"), mode=None).view(np.uint16)',
    'return self._pairs.take(which.view("<u2"), ).view(np.uint16)',
    # More bits than are needed, in more time.
    "sums = np.add.reduce(stacked, dtype=None)",
    "sums = np.add.reduce(stacked, )",
    "tally = np.zeros(shape, dtype=np.int8 if bound < _HIGHEST_BYTE else np.int64)",
    # The same numbers elsewhere in memory.
    "tally[0, : len(own)] += np.multiply(flips, satisfied, out=None)",
    "tally[0, : len(own)] += np.multiply(flips, satisfied, )",
    "own ^= np.multiply(flips, _ALL_BITS_BUT_THE_LAST, out=None)",
    "own ^= np.multiply(flips, _ALL_BITS_BUT_THE_LAST, )",
    # `where` makes int64 of int64 and bool.
    'calls = {"target_calls": calls_here + torch.where(asked_there, calls_there, evaluated.to(None))}',
)
CONFIGURATION = """
[tool.mutmut]
source_paths = ["gfnmc"]
only_mutate = {files}
# In one process, and without the checks of shapes, which would kill mutants for another reason than a wrong number.
pytest_add_cli_args = ["-n0", "-o", "addopts=--import-mode=importlib"]
pytest_add_cli_args_test_selection = {tests}
"""


def main() -> int:
    """Run mutmut, print what lives, and return 1 if that is more than the equivalent mutants."""
    modules = sys.argv[1:] or list(MUTATED)
    if not MUTATED.keys() >= set(modules):
        print(f"give modules among {', '.join(MUTATED)}; none for all")
        return 2
    patterns = [_pattern(module, name) for module in modules for name in MUTATED[module]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _copy(folder, modules)
        run = _mutmut(folder, "run", *patterns)
        outcomes = {mutant: mark for mark, mutant in re.findall(r"(\S+) (gfnmc\.\S+__mutmut_\d+)", run)}
        if not outcomes:
            print(run)
            return 1
        alive = [mutant for mutant, mark in outcomes.items() if mark != "🎉"]
        changes = {mutant: _change(_mutmut(folder, "show", mutant)) for mutant in alive}
    counted = Counter(mutant.rpartition("__mutmut_")[0] for mutant in outcomes)
    living = Counter(mutant.rpartition("__mutmut_")[0] for mutant in alive)
    for place, number in sorted(counted.items()):
        print(f"{place}: {number} mutants, {number - living[place]} killed")
    unknown = {mutant: change for mutant, change in changes.items() if change not in EQUIVALENT}
    for mutant, change in unknown.items():
        print(f"alive: {mutant}: {change}")
    # A function that was renamed would leave the list in silence.
    unmatched = [pattern for pattern in patterns if not fnmatch.filter(outcomes, pattern)]
    for pattern in unmatched:
        print(f"no mutants: {pattern}")
    print(f"{len(outcomes)} mutants, {len(alive) - len(unknown)} of them equivalent, {len(unknown)} alive")
    return 1 if unknown or unmatched else 0


def _copy(folder: Path, modules: list[str]) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    files = [module.replace(".", "/") + ".py" for module in modules]
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(CONFIGURATION.format(files=json.dumps(files), tests=json.dumps(TESTS)))
    for name in files:
        # mutmut leaves decorated functions alone, and the steps are.
        code = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text(code.replace("    @torch.no_grad()\n", ""), encoding="utf-8")


def _pattern(module: str, name: str) -> str:
    """Return what the names of a function's mutants match; mutmut joins their parts by signs of its own."""
    return f"{module}.x?{name.replace('.', '?')}__mutmut_*"


def _mutmut(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "mutmut", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)  # noqa: S603 - our own interpreter
    return done.stdout + done.stderr


def _change(difference: str) -> str:
    """Return the line that a mutant has in the place of another."""
    added = [line[1:].strip() for line in difference.splitlines() if line.startswith("+") and line[:3] != "+++"]
    return " ".join(added)


if __name__ == "__main__":
    sys.exit(main())
