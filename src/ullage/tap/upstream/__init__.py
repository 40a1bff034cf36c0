"""The way to the server behind the tap: connections, their cap, and what is read of an answer."""
