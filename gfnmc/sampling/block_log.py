"""Which blocks of draws a run directory holds, and what they must look like: a line of `blocks.jsonl` for each.

Every line has a digest of itself, in which that of the line before goes in, so that the digest of the last line stands
for all draws. A block that was written before it was full has another line later on, which counts instead.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gfnmc.core.errors import DamageError
from gfnmc.sampling.checked_files import digest_of, sealed, unsealed

EMPTY_DIGEST = digest_of(b"")
"""The digest of a log without lines."""


class Part(NamedTuple):
    """What one array of a block must be.

    Attributes:
        dtype: As NumPy writes it.
        shape: With the draws of the block.
        digest: Of its bytes.
    """

    dtype: str
    shape: list[int]
    digest: str


class Block(NamedTuple):
    """A block of draws.

    Attributes:
        phase: "warmup" or "samples".
        number: Blocks of the phase before it.
        num_draws: Draws a chain in it.
        parts: What each of its arrays must be, by name.
    """

    phase: str
    number: int
    num_draws: int
    parts: dict[str, Part]

    @property
    def name(self) -> str:
        """What it is called in errors."""
        return f"block {self.number} of the {self.phase}"


def line_of(block: Block, previous: str) -> tuple[bytes, str]:
    """Return a line of the log, and its digest.

    Args:
        block: What it describes.
        previous: The digest of the line before.
    """
    line = sealed(block._asdict() | {"previous": previous})
    return line + b"\n", json.loads(line)["digest"]


def read_lines(data: bytes, path: Path) -> tuple[list[Block], DamageError | None]:
    """Return the blocks of a log up to the first damaged line, and what is wrong with that.

    Args:
        data: The lines.
        path: Where they were read, for errors.
    """
    blocks: list[Block] = []
    previous = EMPTY_DIGEST
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        part = f"line {number} of {path.name}"
        try:
            content = unsealed(line, path.parent, part)
            if content.pop("previous") != previous:
                raise DamageError(f"{part} in {path.parent} does not follow the line before it", part=part)
        except DamageError as error:
            return blocks, error
        previous = json.loads(line)["digest"]
        blocks.append(Block(**content))
    return blocks, None


def digest_of_lines(data: bytes) -> str:
    """Return the digest of the last of some sound lines."""
    lines = data.split(b"\n")[:-1]
    return json.loads(lines[-1])["digest"] if lines else EMPTY_DIGEST


def latest(blocks: Sequence[Block], phase: str) -> list[Block]:
    """Return the blocks of a phase in order, each as its last line describes it."""
    found = {block.number: block for block in blocks if block.phase == phase}
    return [found[number] for number in sorted(found)]
