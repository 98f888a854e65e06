"""What a margin and a chosen threshold decide: sections of the page that are tables."""
