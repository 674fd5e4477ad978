"""Formats: the bytes of a file, and what they mean."""
