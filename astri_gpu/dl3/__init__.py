"""Event lists, responses and indices as science tools read them (GADF), and their check."""
