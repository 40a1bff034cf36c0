"""Ullage: verify that an AI server does only the inference it declares."""

__version__ = "0.1.0"
