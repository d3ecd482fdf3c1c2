"""Finding the inputs: folders, globs, lists, URLs, archives."""
