"""Other people's frameworks, one a file, each imported only when it is asked for."""
