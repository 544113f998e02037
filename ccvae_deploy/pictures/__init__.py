"""Image files decoded, and what is done with their pixels. Touches nameless temporary files, and see `decoding`."""
