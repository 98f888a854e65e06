"""Text for a paper: the methods, the flow of cases, table 1, items of reporting guidelines, and references."""
