"""Mutate the acceptance code, and fail if a mutant lives that is not known to be equivalent.

    pip install "mutmut==3.8.1"
    python tests/mutation/run.py

Works on a copy in a temporary folder. What it finds, and why the equivalent mutants are: docs/reference/mutants.md.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("gfnmc", "tests", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
MUTATED = (
    "gfnmc.core.tempering.x_tempered_change",
    "gfnmc.kernels.branch.x_log_branch_probability",
    "gfnmc.kernels.metropolis.",
    "gfnmc.kernels.parallel_tempering.x_log_swap_ratio",
    "gfnmc.kernels.suffix.x_log_hastings_ratio",
)
EQUIVALENT = (
    # ACCEPTED is 0.
    "reason = torch.where(is_accepted, zero - Reason.ACCEPTED, zero + Reason.REJECTED)",
    # Assigned to no rows.
    "return position.new_zeros(1, dtype=torch.float64)",
    # Only where a row is lazy or has no way back; `decide` looks at neither.
    "log_prob = torch.full_like(state.log_prob, +torch.inf)",
)
CONFIGURATION = """
[tool.mutmut]
source_paths = ["gfnmc"]
only_mutate = [
    "gfnmc/core/tempering.py",
    "gfnmc/kernels/branch.py",
    "gfnmc/kernels/metropolis.py",
    "gfnmc/kernels/parallel_tempering.py",
    "gfnmc/kernels/suffix.py",
]
# In one process, and without the checks of shapes, which would kill mutants for another reason than a wrong number.
pytest_add_cli_args = ["-n0", "-o", "addopts=--import-mode=importlib"]
pytest_add_cli_args_test_selection = ["tests/exact/test_acceptance.py"]
"""


def main() -> int:
    """Run mutmut, print what lives, and return 1 if that is more than the equivalent mutants."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _copy(folder)
        run = _mutmut(folder, "run", *(f"{place}*" for place in MUTATED))
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
    print(f"{len(outcomes)} mutants, {len(alive) - len(unknown)} of them equivalent, {len(unknown)} alive")
    return 1 if unknown else 0


def _copy(folder: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(CONFIGURATION)
    # mutmut leaves decorated functions alone, and the accept step is one.
    accept = folder / "gfnmc" / "kernels" / "metropolis.py"
    accept.write_text(accept.read_text(encoding="utf-8").replace("    @torch.no_grad()\n", ""), encoding="utf-8")


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
