"""Rows of images out of packed files, past the libraries where they are slow."""
