"""What verifier and agent say to each other, and what each question asks for."""
