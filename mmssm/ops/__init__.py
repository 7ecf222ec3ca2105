"""Native operators, each beside its plain PyTorch reference."""

from .chunked_ssd import chunked_ssd, chunked_ssd_reference
from .routed_selective_scan import (
    routed_selective_scan,
    routed_selective_scan_reference,
)
from .selective_scan import selective_scan, selective_scan_reference
from .state_fusion import state_fusion, state_fusion_reference
from .tree_scan import tree_order, tree_scan, tree_scan_reference

__all__ = [
    'chunked_ssd',
    'chunked_ssd_reference',
    'routed_selective_scan',
    'routed_selective_scan_reference',
    'selective_scan',
    'selective_scan_reference',
    'state_fusion',
    'state_fusion_reference',
    'tree_order',
    'tree_scan',
    'tree_scan_reference',
]
