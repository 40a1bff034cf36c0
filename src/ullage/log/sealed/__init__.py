"""Records under keys of their own: sealed, and who may open them."""
