"""The stages of the command line, one file each."""
