"""The built-in kinds: what is particular about each, and the table of them all."""
