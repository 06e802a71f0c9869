"""Other packages' samplers and pairs, one file each, imported only when asked for."""
