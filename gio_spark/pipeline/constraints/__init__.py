"""Enforcement of thresholds of information metrics on a plan."""
