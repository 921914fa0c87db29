"""What can be said about a student, and saying it: evidence, report.json and its renderings."""
