"""Cuts safetensors shards on storage: numpy and the standard library only."""
