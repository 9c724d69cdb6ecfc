"""Pictures, masks and cameras to train on."""
