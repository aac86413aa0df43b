"""The file that ships: what it holds, how weights are coded in it, and running it here or on a board."""
