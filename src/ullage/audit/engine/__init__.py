"""An engine of the verifier's own in place of the weights."""
