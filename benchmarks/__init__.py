"""What the package does per second, beside ctapipe in the same run (see README.md here)."""
