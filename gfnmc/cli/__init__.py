"""The command line: `gfnmc targets | train | sample | resume | compare | report | benchmark | check`."""

from gfnmc.cli.main import main

__all__ = ["main"]
