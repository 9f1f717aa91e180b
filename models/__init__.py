"""What does the model say? Images in, predictions and detections out. Knows no other room."""
