"""What every layer uses: errors, random numbers, numerics, costs, storage."""
