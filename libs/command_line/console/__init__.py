"""What commands have in common: output to a terminal, shared options, lengths of time."""
