"""What a log's operator does to it: check and mend its files, forget records, change keys."""
