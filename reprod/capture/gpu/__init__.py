"""GPUs and what computes on them: drivers, CUDA, ROCm."""
