"""Measures activations with hooks that reduce them where they are."""
