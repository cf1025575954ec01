"""Communication, one file an algorithm: what moves over one level, and how levels combine."""
