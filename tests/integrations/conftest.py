"""The tests of an adapter are collected where the package that it adapts is installed, as it is in CI (`.ci/run`)."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("gfn") else ["test_torchgfn.py", "torchgfn_cases.py"]
