"""Forests that turn parameters of images and events into energy, class and direction."""
