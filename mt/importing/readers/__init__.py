"""Files of embeddings in other programs' formats, read in parts of a few thousand rows and never unpickled."""
