"""What `doctor` looks at. Standard library only, so that it works where packages are broken."""
