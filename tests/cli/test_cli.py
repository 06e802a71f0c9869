"""The command line: what a user types, what comes back, and that nothing long starts in vain."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
import xarray
from click.testing import CliRunner, Result
from torch import Tensor

import gfnmc
import gfnmc.training
from gfnmc.cli import main
from gfnmc.environments import Lattice
from gfnmc.experiments import PROBLEMS, Problem
from gfnmc.kernels.branch import FullRestart
from gfnmc.targets import Ising
from gfnmc.training import TrainingConfig

START_HERE = "gfnmc compare tfbind-klf1 --report klf1.html"
COMMANDS = ("targets", "train", "sample", "resume", "compare", "benchmark", "check")
TINY = TrainingConfig(
    num_steps=12,
    batch_size=8,
    seeding="none",
    replay_batch_size=8,
    buffer_size=64,
    hidden_size=8,
    num_layers=1,
    check_size=8,
    checkpoint_every=5,
)
TINY_CALLS = 12 * 8 + 8  # the batches, and the look at the end
# Options that make a pair in no time, and with tempered chains to say that it is bad.
HASTY = {"num_steps": 2, "hidden_size": 8, "seed_chains": 4, "seed_warmup": 2, "check_size": 64}
FEW = ("--chains", "4", "--samples", "20", "--warmup", "5", "--quiet")


class Fragile(Ising):
    """An Ising model whose energy breaks at one of its calls, counted from 0; -1 never."""

    def __init__(self, breaks_at: int, value: float = math.nan) -> None:
        super().__init__((2, 2), coupling=0.3)
        self.name = "tiny"
        self.breaks_at = breaks_at
        self.value = value
        self.num_calls = 0

    def log_prob(self, x: Tensor) -> Tensor:
        log_prob = super().log_prob(x)
        if self.num_calls == self.breaks_at:
            log_prob[-1] = self.value
        self.num_calls += 1
        return log_prob


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the target "tiny" known, and return what makes its energy break."""

    def make(breaks_at: int) -> None:
        problem = Problem("tiny", "four spins", lambda: Fragile(breaks_at), Lattice.for_target, TINY, FullRestart())
        monkeypatch.setitem(PROBLEMS, "tiny", problem)

    make(-1)
    return make


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where training starts, so that a test sees that bad input is refused before."""

    def train(*args: object, **options: object) -> None:
        pytest.fail("training has begun")

    monkeypatch.setattr(gfnmc.training, "train", train)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not [path.name for path in tmp_path.rglob("*") if "part" in path.name], "a half-written file was left"


def run(*arguments: str) -> Result:
    # Anything that is not an error of gfnmc or of the user is a bug, and shows.
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def installed(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as a user does, in a process of its own."""
    command = [sys.executable, "-c", "from gfnmc.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)  # noqa: S603 - our own interpreter


def refused(*arguments: str) -> str:
    """Run what must fail as bad input, and return what it says."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert not result.stdout
    return result.stderr.strip()


def tensors(path: Path | str) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(path)


def assert_same_tensors(one: Path | str, other: Path | str) -> None:
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.tobytes() == second[name].tobytes(), name


# Help


def test_help_says_where_to_start_and_lists_the_commands() -> None:
    for arguments in (["--help"], ["-h"], []):
        text = run(*arguments).output
        assert START_HERE in text
        assert all(f"  {command} " in text for command in COMMANDS)
        assert "..." not in text.partition("Commands:")[2], "a summary is cut short"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_explains_every_option(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 100
    parameters = main.commands[command].params
    for option in parameters:
        if option.param_type_name == "option":
            assert option.opts[-1] in result.output
            assert option.help, option.name  # type: ignore[attr-defined]


def test_targets_lists_every_problem_with_its_description() -> None:
    result = run("targets")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(PROBLEMS)
    assert all(problem.description in line for line, problem in zip(lines, PROBLEMS.values(), strict=True))
    assert max(map(len, lines)) <= 120


def test_the_installed_command_runs() -> None:
    found = installed("compare", "tfbind-klf")
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.startswith("gfnmc: there is no target 'tfbind-klf'; did you mean tfbind-klf1?")
    assert len(found.stderr.splitlines()) == 1


def test_the_version_is_the_packages() -> None:
    assert run("--version").output.split()[-1] == "0.1.0"


# Bad input


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("command", [["compare"], ["train", "--out", "p"], ["sample", "--pair", "p", "--out", "d.nc"]])
def test_an_unknown_target_is_refused_in_one_line_with_near_names(command: list[str]) -> None:
    said = refused(command[0], "hypergrid", *command[1:])
    assert len(said.splitlines()) == 1
    assert "did you mean hypergrid-64x64?" in said
    assert all(name in said for name in PROBLEMS)


@pytest.mark.usefixtures("no_training", "tiny")
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["compare", "tiny", "--chain", "4"], "--chains"),
        (["compare", "tiny", "--what"], "--what"),
        (["compare"], "TARGET"),
        (["compare", "tiny", "--chains", "0"], "--chains"),
        (["compare", "tiny", "--chains", "four"], "four"),
        (["compare", "tiny", "--samples", "0"], "--samples"),
        (["compare", "tiny", "--warmup", "-1"], "--warmup"),
        (["compare", "tiny", "--steps", "0"], "--steps"),
        (["compare", "tiny", "--threads", "0"], "--threads"),
        (["compare", "tiny", "--max-seconds", "0"], "--max-seconds"),
        (["compare", "tiny", "--report", "x.txt"], "x.txt ends in '.txt'"),
        (["compare", "tiny", "--report", "report"], "report has no ending"),
        (["compare", "tiny", "--report", "nowhere/x.html"], "there is no folder"),
        (["compare", "tiny", "--json", "nowhere/x.json"], "there is no folder"),
        (["compare", "tiny", "--pair", "nowhere.safetensors"], "nowhere.safetensors"),
        (["train", "tiny"], "--out"),
        (["train", "tiny", "--out", "nowhere/pair"], "there is no folder"),
        (["train", "tiny", "--out", "pair", "--resume"], "--checkpoint"),
        (["train", "tiny", "--out", "pair", "--resume", "--checkpoint", "none"], "none"),
        (["train", "tiny", "--out", "pair", "--resume", "--checkpoint", "none", "--steps", "3"], "--steps"),
        (["train", "tiny", "--out", "pair", "--config", "none.json"], "cannot read none.json"),
        (["sample", "tiny", "--out", "d.nc"], "--pair"),
        (["sample", "tiny", "--pair", "none", "--out", "d.nc"], "none"),
        (["sample", "tiny", "--pair", "none", "--out", "nowhere/d.nc"], "there is no folder"),
        (["sample", "tiny", "--pair", "none", "--out", "d.nc", "--thinning", "0"], "--thinning"),
        (["frobnicate"], "frobnicate"),
    ],
    ids=" ".join,
)
def test_bad_input_is_refused_before_anything_starts(arguments: list[str], word: str, tmp_path: Path) -> None:
    assert word in refused(*arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_training", "tiny")
def test_a_report_that_would_replace_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.html").mkdir()
    assert "is a folder" in refused("compare", "tiny", "--report", "r.html")


@pytest.mark.usefixtures("tiny")
def test_an_unwritable_checkpoint_is_refused_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fragile, "log_prob", lambda *_: pytest.fail("training has begun"))
    assert "there is no folder" in refused("train", "tiny", "--out", "pair", "--checkpoint", "nowhere/c", "--quiet")


@pytest.mark.usefixtures("tiny")
def test_a_file_of_another_kind_or_target_is_no_pair() -> None:
    run("train", "tiny", "--out", "pair", "--checkpoint", "checkpoint", "--quiet")
    assert "gfnmc.checkpoint/2" in refused("sample", "tiny", "--pair", "checkpoint", "--out", "d.nc", *FEW)
    assert "pair holds a pair for the environment" in refused(
        "sample", "ising-4x4", "--pair", "pair", "--out", "d.nc", *FEW
    )
    Path("text").write_text("no tensors here", encoding="utf-8")
    assert "text" in refused("sample", "tiny", "--pair", "text", "--out", "d.nc", *FEW)
    said = refused("train", "ising-4x4", "--out", "other", "--resume", "--checkpoint", "checkpoint")
    assert "was trained for tiny" in said


@pytest.mark.usefixtures("no_training", "tiny")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"num_step": 3}', "options.json: unknown training option 'num_step'"),
        ('{"num_steps": 0}', "options.json: num_steps is 0"),
        ('{"learning_rate": NaN}', "options.json: learning_rate is nan"),
        ('{"objective": "flow_matching"}', "options.json: objective 'flow_matching' does not go with"),
        ("[3]", "holds no JSON object"),
        ("num_steps = 3", "options.json is not JSON"),
        ("\xff", "options.json is not JSON"),
    ],
)
def test_bad_training_options_are_refused_with_their_file(text: str, words: str) -> None:
    Path("options.json").write_text(text, encoding="latin-1")
    assert words in refused("train", "tiny", "--out", "pair", "--config", "options.json")
    assert not Path("pair").exists()


@pytest.mark.usefixtures("no_training", "tiny")
def test_a_resumed_run_takes_no_new_options() -> None:
    Path("options.json").write_text("{}", encoding="utf-8")
    resumed = ["train", "tiny", "--out", "pair", "--resume", "--checkpoint", "none"]
    assert "--config go with a new run" in refused(*resumed, "--config", "options.json")


# Train and sample


@pytest.mark.usefixtures("tiny")
def test_training_options_come_from_a_file_and_steps_from_the_command_line() -> None:
    options = TINY.to_dict() | {"num_steps": 3}
    Path("options.json").write_text(json.dumps(options), encoding="utf-8")
    result = run("train", "tiny", "--out", "pair", "--config", "options.json", "--quiet")
    assert result.exit_code == 0
    assert result.stdout.startswith("trained 3 steps in")
    assert f"with {3 * 8 + 8} target calls" in result.stdout
    fewer = run("train", "tiny", "--out", "pair", "--config", "options.json", "--steps", "1", "--quiet")
    assert "trained 1 step in" in fewer.stdout


@pytest.mark.usefixtures("tiny")
def test_a_run_that_ends_early_says_at_which_step() -> None:
    options = TINY.to_dict() | {"stop_at_acceptance": 1e-9, "check_every": 2, "reward_schedule": "fixed"}
    Path("options.json").write_text(json.dumps(options), encoding="utf-8")
    result = run("train", "tiny", "--out", "pair", "--config", "options.json", "--quiet")
    assert result.exit_code == 0
    assert result.stdout.startswith("trained 4 of 12 steps (stopped early) in")


def test_a_collapsed_pair_is_saved_with_exit_code_1_and_one_warning_on_standard_error() -> None:
    Path("options.json").write_text(json.dumps(HASTY), encoding="utf-8")
    found = installed("train", "ising-4x4", "--out", "pair", "--config", "options.json", "--quiet")
    assert found.returncode == 1
    assert found.stderr.count("the pair has collapsed") == 1
    assert "Traceback" not in found.stderr
    assert "the pair has collapsed" not in found.stdout
    assert "between" in found.stdout.splitlines()[1]
    assert "judged by the held-out tempered objects" in found.stdout
    problem = PROBLEMS["ising-4x4"]
    pair = gfnmc.load_pair("pair", problem.environment(problem.target()))
    assert pair.training_report is not None
    assert pair.training_report["quality"]["warning"] in found.stderr


@pytest.mark.usefixtures("tiny")
def test_train_then_sample_gives_a_file_that_arviz_and_xarray_read() -> None:
    trained = run("train", "tiny", "--out", "pair.safetensors", "--quiet")
    assert trained.exit_code == 0
    cost, figures = trained.stdout.splitlines()
    assert cost.startswith("trained 12 steps in ")
    assert cost.endswith(f"with {TINY_CALLS} target calls; saved pair.safetensors")
    assert "predicted acceptance of a full restart" in figures
    assert "conditional on the modes visited" in figures
    sampled = run("sample", "tiny", "--pair", "pair.safetensors", "--out", "draws.nc", "--thinning", "2", *FEW)
    assert sampled.exit_code == 0
    assert "80 draws" in sampled.stdout
    with xarray.open_datatree("draws.nc") as tree:
        assert set(tree.children) == {"posterior", "sample_stats", "warmup_posterior", "warmup_sample_stats"}
        posterior = tree["posterior"].to_dataset().load()
        assert posterior["x"].shape == (4, 20, 2, 2)
        assert set(np.unique(posterior["x"])) <= {-1, 1}
        assert tree["warmup_posterior"].sizes["draw"] == 5
        assert tree.attrs["target"] == "tiny"
        assert tree.attrs["thinning"] == 2
        assert json.loads(tree.attrs["training_cost"])["target_calls"] == TINY_CALLS
        log_prob = Ising((2, 2), coupling=0.3).log_prob(torch.from_numpy(posterior["x"].values.reshape(-1, 2, 2)))
        np.testing.assert_array_equal(tree["sample_stats"]["lp"].values.ravel(), log_prob.numpy())
    import arviz

    draws = arviz.from_netcdf("draws.nc")
    assert draws["posterior"]["magnetisation"].shape == (4, 20)


@pytest.mark.usefixtures("tiny")
def test_the_same_seed_gives_the_same_pair_and_draws_and_another_seed_others() -> None:
    for name, seed in (("one", "3"), ("same", "3"), ("other", "4")):
        run("train", "tiny", "--out", name, "--seed", seed, "--quiet")
        run("sample", "tiny", "--pair", name, "--out", f"{name}.nc", "--seed", seed, *FEW)
    assert_same_tensors("one", "same")
    x = {}
    for name in ("one", "same", "other"):
        with xarray.open_datatree(f"{name}.nc") as tree:
            x[name] = tree["posterior"]["x"].values
    assert x["one"].tobytes() == x["same"].tobytes()
    assert x["one"].tobytes() != x["other"].tobytes()
    assert any((tensors("one")[key] != value).any() for key, value in tensors("other").items())


def test_a_resumed_run_makes_the_pair_of_an_uninterrupted_one(tiny: Callable[[int], None]) -> None:
    run("train", "tiny", "--out", "whole", "--checkpoint", "unused", "--seed", "5", "--quiet")
    tiny(8)
    said = refused("train", "tiny", "--out", "resumed", "--checkpoint", "c", "--seed", "5", "--quiet")
    assert "returned nan" in said
    assert not Path("resumed").exists()
    tiny(-1)
    result = run("train", "tiny", "--out", "resumed", "--checkpoint", "c", "--resume", "--quiet")
    assert result.exit_code == 0
    assert_same_tensors("whole", "resumed")
    # The cost is that of the whole run, whenever it was interrupted.
    assert f"with {TINY_CALLS} target calls" in result.stdout


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_target_that_breaks_keeps_the_finished_draws(
    tiny: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    run("train", "tiny", "--out", "pair", "--quiet")
    whole = run("sample", "tiny", "--pair", "pair", "--out", "whole.nc", *FEW)
    assert whole.exit_code == 0
    # Calls of the energy: the start, then two a step. Step 15 (the first is 0) is the tenth after the warm-up.
    fragile = Problem("tiny", "", lambda: Fragile(1 + 2 * 15, float(value)), Lattice.for_target, TINY, FullRestart())
    monkeypatch.setitem(PROBLEMS, "tiny", fragile)
    result = run("sample", "tiny", "--pair", "pair", "--out", "kept.nc", *FEW)
    assert result.exit_code == 2
    assert "chain 3, step 15" in result.stderr
    assert "the draws finished by then are in kept.nc" in result.stderr
    with xarray.open_datatree("whole.nc") as all_draws, xarray.open_datatree("kept.nc") as kept:
        assert kept["posterior"].sizes["draw"] == 10
        expected = all_draws["posterior"]["x"][:, :10]
        np.testing.assert_array_equal(kept["posterior"]["x"], expected)


def test_a_target_that_breaks_in_the_warm_up_leaves_no_file(tiny: Callable[[int], None]) -> None:
    run("train", "tiny", "--out", "pair", "--quiet")
    tiny(3)
    assert "step 1" in refused("sample", "tiny", "--pair", "pair", "--out", "kept.nc", *FEW)
    assert not Path("kept.nc").exists()


# Compare


def test_a_comparison_that_breaks_keeps_the_finished_draws_of_every_sampler(tiny: Callable[[int], None]) -> None:
    run("train", "tiny", "--out", "pair", "--quiet")
    # Calls of the energy: the evidence, the start of the hybrid and two a step of its 25, the start of the walk.
    tiny(2 + 2 * 25 + 1 + 12)
    said = run("compare", "tiny", "--pair", "pair", "--report", "r.html", *FEW)
    assert said.exit_code == 2
    assert "returned nan" in said.stderr
    assert not Path("r.html").exists()
    with xarray.open_datatree("r.hybrid.nc") as hybrid, xarray.open_datatree("r.random-walk.nc") as walk:
        assert hybrid["posterior"].sizes["draw"] == 20
        assert walk["posterior"].sizes["draw"] == 12 - 5


@pytest.mark.usefixtures("tiny")
def test_compare_writes_report_figures_and_draws_and_exits_by_the_status() -> None:
    result = run("compare", "tiny", "--report", "r.html", "--json", "r.json", *FEW)
    document = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert document["samplers"][0]["status"] == "unconverged"
    assert result.exit_code == 1
    written = {"r.html", "r.json", "r.hybrid.nc", "r.random-walk.nc"}
    assert {path.name for path in Path().iterdir()} == written
    assert all(f"wrote {name}" in result.stdout for name in written)
    assert "hybrid: not converged" in result.stdout
    assert "random walk" in Path("r.html").read_text(encoding="utf-8")
    with xarray.open_datatree("r.hybrid.nc") as tree:
        assert tree["posterior"].sizes["draw"] == 20


@pytest.mark.usefixtures("tiny")
def test_compare_exits_with_0_where_the_chain_mixed() -> None:
    enough = ["--chains", "8", "--samples", "400", "--quiet"]
    result = run("compare", "tiny", "--steps", "1", "--json", "r.json", *enough)
    document = json.loads(Path("r.json").read_text(encoding="utf-8"))

    assert document["samplers"][0]["status"] == "ok"
    assert result.exit_code == 0
    assert "mixed: found all 2 modes" in result.stdout


@pytest.mark.usefixtures("no_training")
def test_compare_takes_a_saved_pair_and_charges_its_training() -> None:
    problem = PROBLEMS["hypergrid-8x8x8x8"]
    target = problem.target()
    environment = problem.environment(target)
    result = gfnmc.training.trainer.train(environment, target, config=TINY, progress_bar=False)
    gfnmc.save_pair(result.pair, "pair")
    compared = run("compare", problem.name, "--pair", "pair", "--report", "r.json", *FEW)
    assert compared.exit_code == 1
    document = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert document["samplers"][0]["cost"]["training"]["target_calls"] == TINY_CALLS
    assert document["title"] == problem.name


def test_progress_goes_to_standard_error_and_results_to_standard_output() -> None:
    Path("options.json").write_text(json.dumps(HASTY), encoding="utf-8")
    found = installed("train", "ising-4x4", "--out", "pair", "--config", "options.json")
    assert found.stdout.startswith("trained 2 steps in")
    assert len(found.stdout.splitlines()) == 2
    assert "training: 2 of 2" in found.stderr


def test_compare_takes_a_trained_pair_or_trains_one() -> None:
    message = refused("compare", "ising-4x4", "--pair", "pair.safetensors", "--steps", "5")
    assert "give one of them" in message
