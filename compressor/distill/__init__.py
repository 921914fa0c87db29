"""What distillation methods are made of: losses, networks, augmentation, and what every training loop shares."""
