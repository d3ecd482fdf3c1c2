"""How sure the figures are, and whether place and time make a difference. The unit is a person; people of one camera and day are a cluster."""
