"""The works of benchmarks/peers.py that gfnmc does side by side with others, and what is asked of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from peers_libraries import GFNX, OWN, TORCHGFN, Libraries, clock
from peers_worker import Task

Row = dict[str, Any]

ISING = {"kind": "ising", "side": 10}
GRID = {"kind": "grid", "num_dims": 4, "side": 8}
WIDE_GRID = {"kind": "grid", "num_dims": 2, "side": 64}

BATCH = 256
TRAINING_BATCHES = (16, 256, 2048)
PRODUCT_SIDES, PRODUCT_BATCHES, PRODUCT_BLOCKS = (10, 20), (64, 512, 4096), (0, 512, 128)

STEPS_BACK = 45
"""Of 100 on the 10x10 lattice."""

ISING_RATIO = 0.445
"""torchgfn undoes ceil(ratio times length), 45 of 100; 0.45 comes out as 46 in float32."""

GRID_RATIO, GRID_LAW = 0.5, ["Uniform", 1, 15]
"""torchgfn undoes half of each object, 7.25 actions in the mean; this law, cut off at the source, 7.43, as spread."""

KEPT, AGAIN = f"{TORCHGFN}, log P_F kept", f"{TORCHGFN}, log P_F again"
"""torchgfn may keep log P_F from sampling, or compute it again in one go, which pays for small batches only."""

MOST_AGAIN = 256

LONG = {"grid-8": -1.55, "grid-64": -3.65}
"""What added to the logit of the exit makes P_F build objects of the mean length of uniform ones, 14 and 63."""


@dataclass(frozen=True)
class Contest:
    """A work and its rivals. One run of each does equally much of it.

    Attributes:
        name: What the user types.
        work: What it is, in words.
        own: The task of gfnmc, whose P_B is uniform whatever the task says of it.
        rivals: Library and task by label; the fastest counts.
        least: What the ratio must reach; None where nothing is asked.
    """

    name: str
    work: str
    own: Task
    rivals: dict[str, tuple[str, Task]]
    least: float | None = None


def contests() -> list[Contest]:
    """Return all contests, in the order of rows."""
    return [*_chains(), *_sampling(), *_training(), *_products()]


def run(contest: Contest, libraries: Libraries, rounds: int, seconds: float) -> Row:
    """Clock a contest and return its row: CPU-seconds of the fastest rival over those of gfnmc."""
    present = {label: rival for label, rival in contest.rivals.items() if rival[0] in libraries}
    libraries.check_rewards(contest.own["space"], sorted({OWN} | {name for name, _ in present.values()}))
    clocked = clock(libraries, {OWN: (OWN, contest.own)} | present, rounds, seconds)
    rivals = [clocked[label] for label in present]
    missing = sorted({name for name, _ in contest.rivals.values()} - {name for name, _ in present.values()})
    value = by_wall = None
    if not missing:
        value = min(rival["cpu_seconds"] for rival in rivals) / clocked[OWN]["cpu_seconds"]
        by_wall = min(rival["wall_seconds"] for rival in rivals) / clocked[OWN]["wall_seconds"]
    return {
        "work": contest.work,
        "value": value,
        "required": None if contest.least is None else f">= {contest.least:g}",
        "holds": None if contest.least is None or value is None else value >= contest.least,
        "name": contest.name,
        "by_wall": by_wall,
        "not_measured": missing,
        "batch": contest.own["batch"],
        "clocked": clocked,
    }


def _chains() -> Iterator[Contest]:
    every_step = {"tabulated": False}
    fixed, spread, uniform = ["Fixed", STEPS_BACK], ["Uniform", 1, 2 * STEPS_BACK - 1], {"backward": "uniform"}
    works = (
        ("ising", "Ising 10x10, K = 45", ISING, fixed, {}, 15.0),
        ("ising-spread", "Ising 10x10, K uniform over 1 ... 89 here", ISING, spread, {}, None),
        ("ising-uniform", "Ising 10x10, K = 45, torchgfn's P_B uniform too", ISING, fixed, uniform, None),
        ("grid", "hypergrid 8^4", GRID, GRID_LAW, {}, 6.0),
        ("grid-network", "hypergrid 8^4, the network evaluated at every step", GRID, GRID_LAW, every_step, None),
        ("grid-fixed", "hypergrid 8^4, K = 8 here", GRID, ["Fixed", 8], {}, None),
        ("grid-uniform", "hypergrid 8^4, torchgfn's P_B uniform too", GRID, GRID_LAW, uniform, None),
        ("grid-long", "hypergrid 8^4, long paths", GRID, GRID_LAW, {"exit_bias": LONG["grid-8"]}, None),
    )
    for name, work, space, law, more, least in works:
        task = {"kind": "chain", "space": space, "batch": BATCH} | more
        search = task | {"back_ratio": ISING_RATIO if space is ISING else GRID_RATIO}
        work = f"chain steps over torchgfn's local search, {work}"
        yield Contest(f"chain-{name}", work, task | {"branch": law}, {TORCHGFN: (TORCHGFN, search)}, least)


def _sampling() -> Iterator[Contest]:
    def sampling(name: str, work: str, space: Task, least: float | None, **more: Any) -> Contest:
        task = {"kind": "sampling", "space": space, "batch": BATCH} | more
        rivals = {peer: (peer, task) for peer in (TORCHGFN, GFNX)}
        return Contest(f"sampling-{name}", f"forward sampling over the faster peer, {work}", task, rivals, least)

    yield sampling("ising", "Ising 10x10", ISING, 3.0)
    for name, work, space in (("grid-8", "hypergrid 8^4", GRID), ("grid-64", "hypergrid 64^2", WIDE_GRID)):
        yield sampling(name, work, space, 3.0)
        network = f"{work}, the network evaluated at every step"
        yield sampling(f"{name}-network", network, space, None, tabulated=False)
        yield sampling(f"{name}-long", f"{work}, long paths", space, None, exit_bias=LONG[name])


def _training() -> Iterator[Contest]:
    for name, work, space in (("ising", "Ising 10x10", ISING), ("grid", "hypergrid 8^4", GRID)):
        for batch in TRAINING_BATCHES:
            yield _iterations(f"{name}-{batch}", f"{work}, batch {batch}", space, batch, 3.0)
        uniform = f"{work}, batch {BATCH}, torchgfn's P_B uniform too"
        yield _iterations(f"{name}-uniform", uniform, space, BATCH, None, backward="uniform")
    longer = f"hypergrid 8^4, batch {BATCH}, long paths"
    yield _iterations("grid-long", longer, GRID, BATCH, None, exit_bias=LONG["grid-8"])


def _iterations(name: str, work: str, space: Task, batch: int, least: float | None, **more: Any) -> Contest:
    task = {"kind": "training", "space": space, "batch": batch} | more
    rivals = {KEPT: (TORCHGFN, task | {"keeps_log_probs": True})}
    if batch <= MOST_AGAIN:
        rivals[AGAIN] = (TORCHGFN, task | {"keeps_log_probs": False})
    rivals[GFNX] = (GFNX, task)
    return Contest(f"training-{name}", f"training iterations over the faster peer, {work}", task, rivals, least)


def _products() -> Iterator[Contest]:
    for side in PRODUCT_SIDES:
        for batch in PRODUCT_BATCHES:
            space = ISING | {"side": side}
            own = {"kind": "chain", "space": space, "batch": batch, "branch": ["Fixed", STEPS_BACK]}
            bare = {"kind": "products", "num_steps": STEPS_BACK, "batch": batch}
            rivals = {
                f"products, {f'blocks of {block} rows' if block else 'whole'}": (OWN, bare | {"block": block})
                for block in PRODUCT_BLOCKS
            }
            work = f"chain steps over what the network's own matrix products would allow, D = {side**2}, batch {batch}"
            yield Contest(f"products-{side**2}-{batch}", work, own, rivals, 0.5)
