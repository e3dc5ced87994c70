"""The Hydra configuration tree, installed as `astri_gpu.configs`."""
