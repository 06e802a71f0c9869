"""What a comparison says of itself."""

from gfnmc.environments import HyperGrid
from gfnmc.experiments import compare
from gfnmc.kernels import Gibbs, RandomWalk
from gfnmc.targets import HyperGrid as HyperGridTarget


def test_the_line_and_the_block_say_who_mixed() -> None:
    grid, target = HyperGrid(2, 4), HyperGridTarget(2, 4)
    kernels = {"walk": RandomWalk(grid, target), "<b>gibbs": Gibbs(grid, target)}
    comparison = compare(kernels, target, num_chains=4, num_samples=30, num_warmup=2, progress_bar=False)
    statuses = [sampler["status"] for sampler in comparison.document["samplers"]]
    assert repr(comparison) == f"Comparison(hypergrid-2d-4: walk {statuses[0]}, <b>gibbs {statuses[1]})"
    block = comparison._repr_html_()
    assert "<b>" not in block
    assert "&lt;b&gt;gibbs" in block
    for sentence in comparison.document["verdict"]:
        assert sentence.split(":")[-1].split("'")[0] in block
    assert block.count("<tr>") == 1 + 2 + 4 + 2
