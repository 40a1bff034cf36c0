"""The same audit on many machines, bit for bit."""
