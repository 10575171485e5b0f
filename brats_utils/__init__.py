"""Multi-label 3D brain tumour segmentation with MONAI and Weights & Biases: the library behind the notebooks."""
