"""scikit-learn with autolog: the run says which dataset it was trained on. Two lines are reprod's.

python examples/sklearn_train.py ./points points
"""

import sys
from pathlib import Path

import mlflow
import numpy as np
from sklearn.linear_model import LogisticRegression

import reprod


def main(folder: Path, dataset: str) -> None:
    """Train on all CSV files of ``folder``, which is registered as ``dataset``."""
    rows = np.concatenate([np.loadtxt(path, delimiter=",", skiprows=1) for path in sorted(folder.glob("*.csv"))])
    points, labels = rows[:, :2], rows[:, 2]
    mlflow.sklearn.autolog(log_models=False, log_datasets=False)
    with reprod.track(dataset), mlflow.start_run():
        model = LogisticRegression(C=0.5).fit(points, labels)
        mlflow.log_metric("accuracy", model.score(points, labels))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
