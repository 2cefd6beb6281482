"""Hugging Face's Trainer, which starts the MLflow run itself: that run is tagged as it starts. Two lines are reprod's.

A model of a few thousand weights, made here: nothing is downloaded.

python examples/hf_trainer.py ./points points
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import reprod


class Points(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The lines of all CSV files of a folder: two coordinates as two words, and the class."""

    def __init__(self, folder: Path) -> None:
        rows = np.concatenate([np.loadtxt(path, delimiter=",", skiprows=1) for path in sorted(folder.glob("*.csv"))])
        self.words = torch.tensor(np.clip(rows[:, :2] * 8 + 32, 0, 63), dtype=torch.long)
        self.labels = torch.tensor(rows[:, 2], dtype=torch.long)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.words[number], "labels": self.labels[number]}


def main(folder: Path, dataset: str) -> None:
    """Train on ``folder``, which is registered as ``dataset``."""
    shape = BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=2
    )
    with tempfile.TemporaryDirectory() as output:
        settings = TrainingArguments(
            output_dir=output, max_steps=10, per_device_train_batch_size=16, logging_steps=5, save_strategy="no",
            report_to=["mlflow"], use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(model=BertForSequenceClassification(shape), args=settings, train_dataset=Points(folder))
        with reprod.track(dataset):
            trainer.train()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
