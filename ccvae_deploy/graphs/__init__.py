"""The files of a bundle, each alone: vetted before a session is made, described, opened. Reads, writes nothing."""
