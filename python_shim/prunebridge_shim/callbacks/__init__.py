"""The shim as a guest of jobs whose training loop is a framework's: one module for each framework."""
