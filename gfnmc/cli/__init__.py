"""The command line: `gfnmc targets | train | sample | compare`."""

from gfnmc.cli.main import main

__all__ = ["main"]
