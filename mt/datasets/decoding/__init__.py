"""From image files to 8-bit RGB pixels."""
