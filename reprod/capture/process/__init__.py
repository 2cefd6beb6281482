"""Who a process is, and how it was started."""
