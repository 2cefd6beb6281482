"""Where captures go: MLflow, through one child process that the daemon can kill, and the local server for a laptop.

Only modules of this package import mlflow, and only inside functions that run in the child. The parent side
(``child``, ``server``, ``protocol``) stays cheap to import.
"""
