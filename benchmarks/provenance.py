"""Where the figures of a benchmark come from: date, commit, machine. Needs nothing but the standard library."""

import datetime
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """Return date, commit, cores and processor, as results begin with them."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
    }


def commit() -> str | None:
    """Return the commit of the code that runs, and whether it was changed since; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    root = Path(__file__).parents[1]
    commit = _output(git, "-C", str(root), "rev-parse", "HEAD")
    changed = _output(git, "-C", str(root), "status", "--porcelain", "--", "gfnmc", ":(glob)benchmarks/*.py")
    return f"{commit}, with changes" if commit and changed else commit


def _output(*command: str) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else None
