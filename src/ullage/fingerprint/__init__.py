"""Activation fingerprints: hidden states of a cooperating prover, committed first, projected afterwards."""
