"""Ways into web frameworks: one file each."""
