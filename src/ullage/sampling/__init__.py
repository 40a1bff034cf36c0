"""From logits to a token: sampling parameters, filters, seeded noise, and the versioned sampler profiles."""
