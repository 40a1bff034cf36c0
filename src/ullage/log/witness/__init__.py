"""Others who vouch for the log's one history, and HTTP for it."""
