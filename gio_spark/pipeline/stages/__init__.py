"""Stages of a run, a file each: what one makes is what the next ones read."""
