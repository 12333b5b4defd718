"""What is fetched from elsewhere: base models, packs."""
