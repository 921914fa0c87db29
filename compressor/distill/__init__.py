"""The pieces that distillation methods are made of: losses, networks, augmentation and the training loop's bookkeeping."""
