"""Usage's side of the proof of the books: sums of the recorded calls that billing compares with its own."""
