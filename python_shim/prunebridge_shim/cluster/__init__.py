"""Measures inside of a running Megatron-Core job, over all of its ranks."""
