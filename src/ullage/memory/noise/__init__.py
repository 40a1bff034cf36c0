"""Noise that a seed gives at a known cost."""
