"""Still pictures: from the bytes of a file to a frame."""
