"""The same scorer with fewer operations, equal in value to the plain one."""
