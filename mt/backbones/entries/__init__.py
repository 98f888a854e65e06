"""What the registries hold: the form of an entry, foundation models by name, and what one needs to be used."""
