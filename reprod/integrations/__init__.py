"""Where reprod meets the tools of a training process: MLflow's run context provider and what it calls."""
