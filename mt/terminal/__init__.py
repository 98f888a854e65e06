"""What all commands share on the screen: options, progress, tables."""
