"""Makes children of open models: cut where they stand, or as views that leave them as they are."""
