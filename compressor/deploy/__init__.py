"""From the exported networks to the files that ship: their precisions, engines and kit, and results from a board."""
