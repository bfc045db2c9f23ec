"""Any PyTorch network, traced into channels that can be cut."""
