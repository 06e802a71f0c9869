"""What a training run says of itself."""

from dataclasses import replace

from gfnmc.environments import HyperGrid
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.training import TrainingConfig, train
from tests.training.cases import TINY


def test_the_line_and_the_block_say_how_good_the_pair_is() -> None:
    result = train(HyperGrid(2, 4), HyperGridTarget(2, 4), config=TrainingConfig(**TINY), seed=1, progress_bar=False)
    assert repr(result).startswith("TrainingResult(12 steps, predicted acceptance ")
    block = result._repr_html_()
    for words in ("hypergrid-2d-4", f"{result.quality.acceptance:.3g}", f"{result.cost.target_calls:,} target calls"):
        assert words in block
    assert block.count("<details>") == 2
    warned = replace(result, quality=replace(result.quality, warning="<b>lost</b>", elbo=None))
    assert '<p class="warning">&lt;b&gt;lost&lt;/b&gt;</p>' in warned._repr_html_()
    assert "between unknown (ELBO)" in warned._repr_html_()


def test_a_pair_without_a_report_has_a_summary() -> None:
    result = train(HyperGrid(2, 4), HyperGridTarget(2, 4), config=TrainingConfig(**TINY), seed=1, progress_bar=False)
    result.pair.training_report = None
    assert "steps unknown" in repr(result)
    assert "Options" not in result._repr_html_()
