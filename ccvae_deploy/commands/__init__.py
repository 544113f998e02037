"""The commands: thin shells over library functions of the same argument names. `cli` registers them."""
