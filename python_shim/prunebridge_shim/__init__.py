"""The Python side of prunebridge: mechanism only. What to measure and what to keep is decided by its client."""

__version__ = "0.1.0"
