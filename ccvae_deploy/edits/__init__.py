"""What is asked of an image, and what becomes of its latents. Pure but for the plan, which is read from a file."""
