"""Looking at a result face by face, putting it right, and saying how far it can be trusted."""
