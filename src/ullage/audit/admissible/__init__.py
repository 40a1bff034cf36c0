"""Tokens that an honest server could have chosen, and what an attacker who stays among them gets."""
