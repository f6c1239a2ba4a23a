"""Ways to choose rows, all on one bounded sample and registered by name."""
