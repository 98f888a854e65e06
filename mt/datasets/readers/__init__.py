"""A reader per dataset: what its publisher lays out, read as splits."""
