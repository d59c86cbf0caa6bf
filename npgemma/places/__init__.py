"""Boxes and masks: the mask codec, answers as places in a picture, drawing, scores."""
