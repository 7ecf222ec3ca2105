"""Small datasets of real handwritten digits, built where they are used."""

from .dataset import MiniCocoDataset, build_mini_coco

__all__ = ['MiniCocoDataset', 'build_mini_coco']
