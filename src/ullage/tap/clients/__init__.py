"""What clients speak: HTTP, the strict requests, the bytes that leave, keys and budgets of a day."""
