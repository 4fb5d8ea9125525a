"""Studies: questions that many estimates together answer, one module each."""
