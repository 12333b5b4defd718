"""From a molecule to its values, intervals and domain; the plain scorer."""
