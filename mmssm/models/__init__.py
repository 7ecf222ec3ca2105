"""Model parts for the three libraries, registered in mmengine's root."""

from .instance_tta import InstanceSegTTAModel

__all__ = ['InstanceSegTTAModel']
