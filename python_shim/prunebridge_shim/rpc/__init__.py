"""The gRPC side: the only part that knows the protocol."""
