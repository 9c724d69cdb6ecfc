"""Signed distance fields that no network makes: each takes points "batch n 3" and gives distances "batch n", negative inside."""
