"""Plumbing: bytes, objects and transactions; synchronous, silent, and blind to the environment."""
