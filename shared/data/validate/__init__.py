"""What is wrong with a matrix, its names or its values: one sentence each, with the cure."""
