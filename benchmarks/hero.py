"""Draw the picture of the README from the figures of a comparison.

    gfnmc compare tfbind-klf1 --report klf1.json
    python benchmarks/hero.py klf1.json docs/pictures/klf1.png

Every figure in it comes from the report; nothing is run again.
"""

import argparse
import json
from pathlib import Path

from gfnmc.report import plots, style


def main() -> None:
    """Read a report's .json file and write the picture as PNG."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help=".json file that `gfnmc compare --report` or --json wrote")
    parser.add_argument("picture", type=Path, help="PNG file to write")
    options = parser.parse_args()
    document = json.loads(options.report.read_text(encoding="utf-8"))
    options.picture.write_bytes(style.png(plots.hero(document)))
    print(f"{options.picture}: {options.picture.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
