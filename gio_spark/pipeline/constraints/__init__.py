"""Holding a plan to thresholds of information metrics."""
