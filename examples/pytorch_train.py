"""A PyTorch loop: the run says which dataset it was trained on. Two lines are reprod's.

python examples/pytorch_train.py ./points points
"""

import sys
from pathlib import Path

import mlflow
import numpy as np
import torch

import reprod


def main(folder: Path, dataset: str) -> None:
    """Train a small network on all CSV files of ``folder``, which is registered as ``dataset``."""
    torch.manual_seed(0)
    rows = np.concatenate([np.loadtxt(path, delimiter=",", skiprows=1) for path in sorted(folder.glob("*.csv"))])
    points = torch.tensor(rows[:, :2], dtype=torch.float32)
    labels = torch.tensor(rows[:, 2], dtype=torch.long)
    model = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with mlflow.start_run(), reprod.track(dataset):
        mlflow.log_params({"lr": 0.01, "hidden": 16})
        for epoch in range(5):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(points), labels)
            loss.backward()
            optimizer.step()
            mlflow.log_metric("loss", loss.item(), step=epoch)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
