"""Holds models: loading, tokenizing, loss and logits."""
