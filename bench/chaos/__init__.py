"""The chaos run: real servers that are killed and frozen at random moments, and a judge who looks from outside."""
