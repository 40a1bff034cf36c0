"""Proof that declared state is in memory while a server serves."""
