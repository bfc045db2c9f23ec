"""Cuts safetensors shards on storage: numpy, zlib-ng and the standard library only."""
