"""Model parts for the three libraries, registered in mmengine's root."""

from .instance_tta import InstanceSegTTAModel
from .simple_fpn import SimpleFPN

__all__ = ['InstanceSegTTAModel', 'SimpleFPN']
