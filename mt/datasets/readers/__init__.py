"""A reader per dataset: what its publisher lays out, read as splits; and the dataset that features were made from."""
