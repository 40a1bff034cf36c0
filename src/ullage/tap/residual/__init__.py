"""What gets out beside the tokens, and in total: bounds over a log, a day, a rack."""
