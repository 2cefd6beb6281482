"""Where the data is: walking, hashing, watching and identifying what is mounted, and writing files so that no reader
sees half.

Everything here touches the file system and nothing here knows about datasets' history, MLflow or the daemon.
"""
