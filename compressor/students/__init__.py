"""Students: architectures by name, pruned copies of the teacher, and the module that is deployed."""
