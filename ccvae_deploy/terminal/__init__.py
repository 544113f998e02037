"""What people see while and after a command runs. Writes to stdout and stderr only."""
