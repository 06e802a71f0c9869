"""Shell completion: the script that a shell asks for, and what it then completes."""

import os
import subprocess
import sys

import pytest
from click.shell_completion import get_completion_class

from gfnmc.cli import main
from gfnmc.experiments import PROBLEMS


def completed(*words: str) -> list[str]:
    """Return what the last word may become."""
    kind = get_completion_class("bash")
    assert kind is not None
    shell = kind(main, {}, "gfnmc", "_GFNMC_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell: str) -> None:
    command = [sys.executable, "-c", "from gfnmc.cli import main; main(prog_name='gfnmc')"]
    environment = os.environ | {"_GFNMC_COMPLETE": f"{shell}_source"}
    if shell == "bash":
        found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)  # noqa: S603
        script = found.stdout
        assert found.returncode == 0
    else:
        kind = get_completion_class(shell)
        assert kind is not None
        script = kind(main, {}, "gfnmc", "_GFNMC_COMPLETE").source()
    assert "_gfnmc_completion" in script
    assert f"_GFNMC_COMPLETE={shell}_complete" in script


def test_commands_options_and_targets_are_completed() -> None:
    assert completed("comp") == ["compare"]
    assert set(completed("")) == set(main.commands)
    assert "--chains" in completed("compare", "ising-4x4", "--ch")
    assert completed("train", "ising-8") == [name for name in PROBLEMS if name.startswith("ising-8")]
    assert completed("frob") == []
