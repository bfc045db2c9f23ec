"""A job of its own for a Megatron checkpoint on storage: built, loaded and measured on all ranks."""
