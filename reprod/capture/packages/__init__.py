"""What is installed: records of site directories, and conda's."""
