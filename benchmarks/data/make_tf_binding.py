"""Make the tables of `gfnmc.targets.TFBinding` from the measured E-scores.

    python benchmarks/data/make_tf_binding.py CSV_DIRECTORY gfnmc/targets/data

CSV_DIRECTORY holds `KLF1.csv.gz` and so on: columns sequence, reverse_complement, e_score; one row for a sequence
and its reverse complement, under the alphabetically first, in alphabetical order. `gfnmc/targets/data/README.md`
says where they come from and describes what is written. The same input gives the same bytes.
"""

import argparse
import csv
import gzip
from decimal import Decimal
from pathlib import Path

import numpy as np

FACTORS = ("KLF1", "WT1", "SNAI2", "SIX6")
NUM_ROWS = (4**8 + 4**4) // 2
COMPLEMENT = str.maketrans("ACGT", "TGCA")


def read_e_scores(path: Path) -> list[Decimal]:
    """Read one factor's E-scores and check that the rows are the ones the package counts on."""
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    sequences = [row["sequence"] for row in rows]
    if len(rows) != NUM_ROWS or sequences != sorted(set(sequences)):
        raise SystemExit(f"{path}: expected {NUM_ROWS} distinct sequences in alphabetical order")
    for row in rows:
        twin = row["sequence"].translate(COMPLEMENT)[::-1]
        if row["reverse_complement"] != twin or twin < row["sequence"]:
            raise SystemExit(f"{path}: {row['sequence']} is not listed with its reverse complement, first one first")
    return [Decimal(row["e_score"]) for row in rows]


def to_byte_planes(e_scores: list[Decimal]) -> np.ndarray:
    """Return E-scores as integers (E + 0.5) * 100,000, one row of bytes a power of 256: (3, rows) uint8."""
    scaled = [(score + Decimal("0.5")) * 100_000 for score in e_scores]
    units = np.array([int(value) for value in scaled])
    if any(value != int(value) for value in scaled) or units.min() < 0 or units.max() > 100_000:
        raise SystemExit("an E-score is not between -0.5 and 0.5, or has more than five decimals")
    return np.stack([units % 256, units // 256 % 256, units // 65536]).astype(np.uint8)


def main() -> None:
    """Convert every factor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv_directory", type=Path)
    parser.add_argument("data_directory", type=Path)
    options = parser.parse_args()
    for factor in FACTORS:
        planes = to_byte_planes(read_e_scores(options.csv_directory / f"{factor}.csv.gz"))
        path = options.data_directory / f"{factor.lower()}.npz"
        np.savez_compressed(path, e_score=planes)
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
