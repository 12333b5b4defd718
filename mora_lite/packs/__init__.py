"""A trained scorer on disk; `shipped/` holds those that come with the package."""
