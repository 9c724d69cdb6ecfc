"""The networks alone: an encoder from picture to latent, a decoder from latent and point to signed distance."""
