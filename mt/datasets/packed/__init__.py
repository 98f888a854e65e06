"""Rows of images from packed files, read without the files' libraries where those are slow."""
