"""`ullage log`."""
