"""The charts of the report, and the numbers they draw."""
