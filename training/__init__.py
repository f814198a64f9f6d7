"""How the model learns: flags, schedules, losses, augmentation, evaluation, checkpoints."""
