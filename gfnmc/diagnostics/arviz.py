"""The door to arviz-stats, which is slow to import and loads when first used."""

from typing import Any


def array_stats() -> Any:
    """Return the statistics of plain arrays that arviz-stats offers, alike in all its versions."""
    import arviz_stats.base

    return arviz_stats.base.array_stats  # pyright: ignore[reportPrivateImportUsage]
