"""`ullage redteam`."""
