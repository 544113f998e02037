"""What is done with pixels once `images` has read them. Touches no file but nameless temporary ones."""
