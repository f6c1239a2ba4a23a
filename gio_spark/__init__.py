"""Choose the rows of a huge pool that are worth training on for a small target set."""

__version__ = "0.1.0"
