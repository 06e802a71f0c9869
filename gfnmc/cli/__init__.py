"""The command line: `gfnmc targets | train | sample | compare | benchmark | check`."""

from gfnmc.cli.main import main

__all__ = ["main"]
