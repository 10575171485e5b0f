"""Segmenting own patients: one, or a folder of them."""
