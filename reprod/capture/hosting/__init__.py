"""Where a process runs: container, cloud, batch system."""
