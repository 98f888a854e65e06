"""Networks that other libraries build, one module per library."""
