"""The exact audit of an enforced log."""
