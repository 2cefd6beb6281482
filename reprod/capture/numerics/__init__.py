"""What decides how numbers are computed."""
