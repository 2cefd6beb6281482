"""Lightning with its MLFlowLogger: the run says which dataset it was trained on. Two lines are reprod's.

The logger makes its run through MLflow's client, which asks no context provider: so the run is tagged by its id.

python examples/lightning_train.py ./points points
"""

import sys
from pathlib import Path

import lightning
import mlflow
import numpy as np
import torch
from lightning.pytorch.loggers import MLFlowLogger

import reprod


class Classifier(lightning.LightningModule):
    """A small network for points of two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _number: int) -> torch.Tensor:
        """Return the loss of one batch."""
        points, labels = batch
        loss = torch.nn.functional.cross_entropy(self.layers(points), labels)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return how it learns."""
        return torch.optim.Adam(self.parameters(), lr=0.01)


def main(folder: Path, dataset: str) -> None:
    """Train on all CSV files of ``folder``, which is registered as ``dataset``."""
    lightning.seed_everything(0)
    rows = np.concatenate([np.loadtxt(path, delimiter=",", skiprows=1) for path in sorted(folder.glob("*.csv"))])
    points, labels = torch.tensor(rows[:, :2], dtype=torch.float32), torch.tensor(rows[:, 2], dtype=torch.long)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(points, labels), batch_size=100)
    logger = MLFlowLogger(experiment_name="points", tracking_uri=mlflow.get_tracking_uri())
    reprod.tag_dataset(dataset, run_id=logger.run_id)
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=logger, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(Classifier(), loader)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
