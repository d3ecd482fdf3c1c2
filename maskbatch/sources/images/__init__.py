"""Still images: from the bytes of a file to a frame."""
