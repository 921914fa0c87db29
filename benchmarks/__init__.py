"""Programs that make the numbers in the README; run them as modules from the project's root."""
