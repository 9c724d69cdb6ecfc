"""What a user gets: files made from fields. Nothing else writes them."""
