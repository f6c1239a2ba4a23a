"""What the command line starts beside a run and its refresh."""
