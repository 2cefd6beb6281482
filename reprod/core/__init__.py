"""What things are: values and pure functions. Nothing here reads a file, a clock or a database."""
