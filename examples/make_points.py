"""Make a small data set for the other examples: points of two classes in some CSV files. No reprod in it.

python examples/make_points.py ./points
"""

import random
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Write four files of 100 points: two coordinates, and the class that they belong to."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(0)  # noqa: S311 - no secret
    for number in range(4):
        lines = ["x,y,class"]
        for _ in range(100):
            label = chance.randrange(2)
            x, y = chance.gauss(2 * label, 0.7), chance.gauss(1 - label, 0.7)
            lines.append(f"{x:.4f},{y:.4f},{label}")
        (folder / f"part-{number}.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
