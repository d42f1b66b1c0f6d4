"""What people use: one family of verbs a file, the library function first, its command line below it."""
