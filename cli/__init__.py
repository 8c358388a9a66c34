"""The `zorro` command."""
