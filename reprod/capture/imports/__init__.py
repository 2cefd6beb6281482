"""What of the installed was used."""
