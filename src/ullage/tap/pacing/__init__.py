"""When an answer leaves: the grid of slots, what is late, and the allowance of exceptions."""
