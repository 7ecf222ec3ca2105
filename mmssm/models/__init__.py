"""Model parts, registered in mmengine's root registries."""

from .change_detector import ChangeDetector
from .change_mamba_head import ChangeMambaHead
from .conv_head import ConvClsHead
from .instance_tta import InstanceSegTTAModel
from .simple_fpn import SimpleFPN

__all__ = [
    'ChangeDetector',
    'ChangeMambaHead',
    'ConvClsHead',
    'InstanceSegTTAModel',
    'SimpleFPN',
]
