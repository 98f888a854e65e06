"""DICOM files: their pixels, their headers, their compressions."""
