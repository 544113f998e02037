"""What is asked of an image, and what becomes of its latents.

`latents` and `redraw` run graphs, `plan` reads a file, the rest is pure.
"""
