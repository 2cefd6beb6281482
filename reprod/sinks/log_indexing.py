"""Owns what an indexing of documents asks of MLflow besides what ``inprocess`` has: the active run, and its counts.

In the user's own process and with the user's own MLflow. A failure of MLflow's is a TrackingError.
"""

import sys
import time
from collections.abc import Mapping

from reprod.sinks import inprocess


def active_run_id() -> str | None:
    """Return the run that is active in this thread, None without one; never imports MLflow, and asks no server."""
    mlflow = sys.modules.get("mlflow")
    if mlflow is None:
        return None
    with inprocess.talking():
        active = mlflow.active_run()
        return str(active.info.run_id) if active else None


def log_counts(run_id: str, parameters: Mapping[str, str], metrics: Mapping[str, float]) -> None:
    """Log one more step of each metric, and the parameters; one that has another value goes to ``reprod.NAME``."""
    mlflow = inprocess.load_mlflow()
    with inprocess.talking():
        client = mlflow.MlflowClient()
        data = client.get_run(run_id).data
        params = inprocess.choose_names(data.params, parameters)
        first = next(iter(metrics))
        step = len(client.get_metric_history(run_id, first)) if first in data.metrics else 0
        now = time.time_ns() // 1_000_000
        client.log_batch(
            run_id,
            metrics=[mlflow.entities.Metric(name, float(value), now, step) for name, value in metrics.items()],
            params=[mlflow.entities.Param(name, value) for name, value in params.items()],
        )
