"""A study's tests look at pages in a real browser."""

from tests.browser import chromium, look

__all__ = ["chromium", "look"]
