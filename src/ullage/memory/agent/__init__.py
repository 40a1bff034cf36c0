"""The prover's side: it fills and reads memory, and answers one verifier at a time."""
