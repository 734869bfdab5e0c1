"""Measurements of ptebot, each a script of its own."""
