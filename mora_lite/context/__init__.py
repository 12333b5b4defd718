"""What helps people to judge a number: the atoms that made it, what else is known of the molecule."""
