"""What is signed: notes, checkpoints, cosignatures, and policies of whose signatures count."""
