"""What models are fed with: from files, or drawn at random."""
