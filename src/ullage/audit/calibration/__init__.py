"""The noise of an honest server: fitted from its runs, signed, and what it says of itself."""
