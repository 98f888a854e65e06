"""Where embeddings are computed: on one device, by a process per device, or on a Ray cluster.

Extraction is a pure function from batches of rows to embeddings (`base.Engine`), with one writer
(`mt.featurize.pipeline`).
"""
