"""The Merkle tree in tiles, and proofs out of it."""
