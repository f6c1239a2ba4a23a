"""Validated settings: one model per stage, one for a whole run."""
