"""Bounds for anybody's scores: a table, no log and no model."""
