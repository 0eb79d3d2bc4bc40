"""What runs will need before they start: trainable parameters and time."""
