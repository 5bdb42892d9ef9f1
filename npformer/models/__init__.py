"""The architectures, one file each, and their common parts."""
