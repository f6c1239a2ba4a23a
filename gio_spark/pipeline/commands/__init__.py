"""Commands beside run and refresh."""
