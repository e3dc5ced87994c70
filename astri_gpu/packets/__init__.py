"""Camera packets: their layout from a descriptor, reading, writing and mending."""
