"""Studies that are too long for a page: each is a program whose results a page shows."""
