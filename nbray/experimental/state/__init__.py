"""Spellings of older Ray."""
